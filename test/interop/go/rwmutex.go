// A read-write lock by etcd's own recipe, as it is told on standard input, one command a line:
//
//	rwmutex ENDPOINT NAME TTL
//
// It answers each of rlock, lock, runlock and unlock with one line.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func main() {
	endpoint, name := os.Args[1], os.Args[2]
	ttl, err := strconv.Atoi(os.Args[3])
	check(err)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	check(err)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	check(err)
	mutex := recipe.NewRWMutex(session, name)
	fmt.Println("ready")

	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		switch commands.Text() {
		case "rlock":
			check(mutex.RLock())
		case "lock":
			check(mutex.Lock())
		case "runlock":
			check(mutex.RUnlock())
		case "unlock":
			check(mutex.Unlock())
		}
		fmt.Println("done", commands.Text())
	}
	check(session.Close())
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// Locks with etcd's own concurrency package, as it is told on standard input, one command a line:
//
//	mutex ENDPOINT NAME TTL
//
// It answers each of lock, trylock, owner and unlock with one line.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func main() {
	endpoint, name := os.Args[1], os.Args[2]
	ttl, err := strconv.Atoi(os.Args[3])
	check(err)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	check(err)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	check(err)
	mutex := concurrency.NewMutex(session, name)
	fmt.Println("ready")

	ctx := context.Background()
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		switch commands.Text() {
		case "lock":
			check(mutex.Lock(ctx))
			fmt.Println("locked", mutex.Key(), mutex.Header().Revision)
		case "trylock":
			if err := tryLock(ctx, session, name, mutex); err != nil {
				fmt.Println("refused:", err)
			} else {
				fmt.Println("locked", mutex.Key(), mutex.Header().Revision)
			}
		case "owner":
			response, err := client.Txn(ctx).If(mutex.IsOwner()).Commit()
			check(err)
			fmt.Println("owner", response.Succeeded)
		case "unlock":
			check(mutex.Unlock(ctx))
			fmt.Println("unlocked")
		}
	}
	check(session.Close())
}

// The package's own TryLock where it has one, which is since etcd 3.5; else the same requests.
func tryLock(ctx context.Context, session *concurrency.Session, name string, mutex *concurrency.Mutex) error {
	if trying, ok := interface{}(mutex).(interface{ TryLock(context.Context) error }); ok {
		return trying.TryLock(ctx)
	}
	client := session.Client()
	key := fmt.Sprintf("%s/%x", name, session.Lease())
	put := clientv3.OpPut(key, "", clientv3.WithLease(session.Lease()))
	first := clientv3.OpGet(name+"/", clientv3.WithFirstCreate()...)
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(put, first).
		Commit()
	check(err)
	owners := response.Responses[1].GetResponseRange().Kvs
	if len(owners) == 0 || string(owners[0].Key) == key {
		// finds the session's key at the head of the line
		return mutex.Lock(ctx)
	}
	_, err = client.Delete(ctx, key)
	check(err)
	return errors.New("mutex: Locked by another session")
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

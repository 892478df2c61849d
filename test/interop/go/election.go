// Elections with etcd's own concurrency package, as it is told on standard input, one command a line:
//
//	election ENDPOINT NAME TTL
//
// It answers each of `campaign VALUE`, `proclaim VALUE`, resign and leader with one line, and after `observe` prints one
// for each leader that it observes. Values are quoted as Go quotes them.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

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
	election := concurrency.NewElection(session, name)
	fmt.Println("ready")

	ctx := context.Background()
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.SplitN(commands.Text(), " ", 2)
		switch words[0] {
		case "campaign":
			check(election.Campaign(ctx, unquoted(words[1])))
			fmt.Println("leads", election.Key(), election.Rev())
		case "proclaim":
			check(election.Proclaim(ctx, unquoted(words[1])))
			fmt.Println("proclaimed")
		case "resign":
			check(election.Resign(ctx))
			fmt.Println("resigned")
		case "leader":
			response, err := election.Leader(ctx)
			if err == concurrency.ErrElectionNoLeader {
				fmt.Println("nobody")
			} else {
				check(err)
				fmt.Println("leader", string(response.Kvs[0].Key), strconv.Quote(string(response.Kvs[0].Value)))
			}
		case "observe":
			go func() {
				for response := range election.Observe(ctx) {
					fmt.Println("observed", string(response.Kvs[0].Key), strconv.Quote(string(response.Kvs[0].Value)))
				}
			}()
		}
	}
	check(session.Close())
}

func unquoted(text string) string {
	value, err := strconv.Unquote(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

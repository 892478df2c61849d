// The lock of the tutorials: the process that creates the key holds the lock, on a lease of five seconds.
//
//	tutorial ENDPOINT KEY WHO
//
// It tries once. When it holds the lock it works until its standard input ends.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	endpoint, key, who := os.Args[1], os.Args[2], os.Args[3]
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	lease, err := client.Grant(ctx, 5)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Revoke(context.Background(), lease.ID)

	renewals, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for range renewals {
		}
	}()

	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, who, clientv3.WithLease(lease.ID))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		log.Fatal(err)
	}
	if !response.Succeeded {
		holder := response.Responses[0].GetResponseRange().Kvs[0]
		fmt.Printf("held by %s\n", holder.Value)
		return
	}
	fmt.Println("locked", key, response.Header.Revision)
	io.Copy(io.Discard, os.Stdin)
}

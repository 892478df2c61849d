// The Mutex of Go's concurrency package as a contender, as protocol.ts says. Its body ends when the session reports that it
// is over, which the package leaves to its user.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sys/unix"
)

type work struct {
	Lock    string
	Turns   string
	Session int
}

type task struct {
	Name    string
	Seed    int64
	Hosts   []string
	Ttl     int
	Workers []work
}

type object = map[string]interface{}

const cleanUp = 20 * time.Millisecond

var (
	asked    task
	client   *clientv3.Client
	stopping = make(chan struct{})
	reports  sync.Mutex
)

func main() {
	check(json.Unmarshal([]byte(os.Args[1]), &asked))
	var err error
	client, err = clientv3.New(clientv3.Config{
		Endpoints:            asked.Hosts,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
	})
	check(err)
	go watchTime()
	go obey()
	report(object{"_tag": "Ready", "pid": os.Getpid()})
	var all sync.WaitGroup
	for i, one := range asked.Workers {
		all.Add(1)
		go func(i int, one work) {
			defer all.Done()
			worker{index: i, work: one, dice: rand.New(rand.NewSource(asked.Seed*1000 + int64(i)))}.loop()
		}(i, one)
	}
	all.Wait()
	client.Close()
}

// ---------------------------------------------------------------------------
// a worker
// ---------------------------------------------------------------------------

type worker struct {
	work
	index int
	dice  *rand.Rand
}

func (w worker) loop() {
	var session *concurrency.Session
	for n := 0; !isStopping(); n++ {
		section := fmt.Sprintf("%s/%d/%d", asked.Name, w.index, n)
		report(object{"_tag": "Wants", "section": section, "lock": w.Lock})
		var err error
		if session == nil || isOver(session) {
			session, err = newSession()
		}
		if err == nil {
			err = w.turn(session, section)
		}
		ended := object{"_tag": "Ended", "section": section, "released": err == nil}
		if err != nil {
			ended["error"] = err.Error()
		}
		report(ended)
		if w.Turns == "forever" {
			break
		}
		pause := time.Duration(w.dice.Intn(60)) * time.Millisecond
		if err != nil {
			pause = 200 * time.Millisecond
		}
		time.Sleep(pause)
	}
	if session != nil {
		session.Close()
	}
}

func newSession() (*concurrency.Session, error) {
	// The session lives for as long as its context, so the grant alone has a deadline.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	lease, err := client.Grant(ctx, int64(asked.Ttl))
	if err != nil {
		return nil, err
	}
	return concurrency.NewSession(client, concurrency.WithTTL(asked.Ttl), concurrency.WithLease(lease.ID))
}

func (w worker) turn(session *concurrency.Session, section string) error {
	mutex := concurrency.NewMutex(session, w.Lock)
	wait, cancel := context.WithTimeout(context.Background(), 6*time.Duration(asked.Ttl)*time.Second)
	defer cancel()
	if err := mutex.Lock(wait); err != nil {
		return err
	}
	w.body(session, mutex, section)
	release, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if err := mutex.Unlock(release); err != nil {
		return err
	}
	if isOver(session) {
		return fmt.Errorf("LockLost the session is over")
	}
	return nil
}

func (w worker) body(session *concurrency.Session, mutex *concurrency.Mutex, section string) {
	report(object{
		"_tag":    "Holds",
		"section": section,
		"token":   strconv.FormatInt(mutex.Header().Revision, 10),
		"key":     mutex.Key(),
		"lease":   strconv.FormatInt(int64(session.Lease()), 16),
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if w.Turns == "forever" {
		select {
		case <-stopping:
		case <-ctx.Done():
		}
	} else {
		millis := time.Duration(w.dice.Intn(10)) * time.Millisecond
		if w.dice.Intn(100) < 15 {
			millis = time.Duration(300+w.dice.Intn(1200)) * time.Millisecond
		}
		if w.countUp(ctx, section, "fenced", millis, mutex.IsOwner()) == nil {
			w.countUp(ctx, section, "plain", millis/2)
		}
	}
	if ctx.Err() != nil {
		time.Sleep(cleanUp)
	}
	report(object{"_tag": "Stopped", "section": section})
}

func (w worker) countUp(ctx context.Context, section, counter string, millis time.Duration, guard ...clientv3.Cmp) error {
	key := "counters/" + counter + "/" + w.Lock
	found, err := client.Get(ctx, key)
	if err != nil {
		return err
	}
	count := 0
	if len(found.Kvs) > 0 {
		count, _ = strconv.Atoi(string(found.Kvs[0].Value))
	}
	select {
	case <-time.After(millis):
	case <-ctx.Done():
		return ctx.Err()
	}
	mark := "marks/" + counter + "/" + w.Lock + "/" + section
	wrote := object{"_tag": "Wrote", "section": section, "counter": counter, "mark": mark, "outcome": "Unknown"}
	report(wrote)
	done, err := client.Txn(ctx).If(guard...).
		Then(clientv3.OpPut(key, strconv.Itoa(count+1)), clientv3.OpPut(mark, "")).
		Commit()
	if err != nil {
		return err
	}
	wrote["outcome"] = "Refused"
	if done.Succeeded {
		wrote["outcome"] = "Applied"
		wrote["revision"] = strconv.FormatInt(done.Header.Revision, 10)
	}
	report(wrote)
	if !done.Succeeded {
		return fmt.Errorf("not the owner")
	}
	return nil
}

func isOver(session *concurrency.Session) bool {
	select {
	case <-session.Done():
		return true
	default:
		return false
	}
}

// ---------------------------------------------------------------------------
// the process
// ---------------------------------------------------------------------------

func obey() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command := strings.Fields(lines.Text())
		switch command[0] {
		case "block":
			// Go has no event loop to block: what holds the processor holds it alone.
		case "usage":
			runtime.GC()
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			report(object{"_tag": "Usage", "heap": memory.HeapAlloc, "sockets": 0})
		case "stop":
			close(stopping)
			return
		}
	}
	os.Exit(1)
}

func isStopping() bool {
	select {
	case <-stopping:
		return true
	default:
		return false
	}
}

func watchTime() {
	last := now()
	for {
		time.Sleep(20 * time.Millisecond)
		at := now()
		if at-last > 100 {
			report(object{"_tag": "Froze", "from": last})
		}
		last = at
	}
}

func report(what object) {
	reports.Lock()
	defer reports.Unlock()
	what["at"] = now()
	line, err := json.Marshal(what)
	check(err)
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Milliseconds of the clock that process.hrtime has in Node.
func now() float64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return float64(t.Sec)*1e3 + float64(t.Nsec)/1e6
}

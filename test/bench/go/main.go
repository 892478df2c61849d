// The Go contenders, asked over stdin as protocol.ts says: `mutex` and `election` are the Mutex and the Election of the
// concurrency package, `rwmutex` is the RWMutex of the recipe package, `raw` one put and one delete.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"golang.org/x/sys/unix"
)

const ttl = 9

type request struct {
	Op      string
	Names   []string
	Name    string
	Claim   string
	Millis  float64
	Section int
	Count   int
	Trace   bool
	Collect bool
	Apart   bool
}

type object = map[string]interface{}

var (
	ctx    = context.Background()
	client *clientv3.Client
	locks  locker
)

func connect() *clientv3.Client {
	connected, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[2]}, DialTimeout: 5 * time.Second})
	check(err)
	return connected
}

func main() {
	client = connect()
	switch os.Args[1] {
	case "mutex":
		locks = &sessions{make: newMutex}
	case "rwmutex":
		locks = &sessions{make: newRWMutex}
	case "raw":
		locks = raw{}
	}
	say(object{})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var asked request
		check(json.Unmarshal(lines.Bytes(), &asked))
		switch asked.Op {
		case "loops":
			say(loops(asked))
		case "tries":
			say(tries(asked))
		case "hold":
			say(hold(asked))
		case "lineUp":
			say(lineUp(asked))
		case "drain":
			say(drain(asked))
		case "usage":
			say(usage(asked))
		case "lead":
			say(lead(asked))
		}
	}
}

// ---------------------------------------------------------------------------
// what is asked
// ---------------------------------------------------------------------------

func loops(asked request) object {
	counts := make([]int, len(asked.Names))
	totals := make([]int, len(asked.Names))
	latencies := make([][]float64, len(asked.Names))
	sections := make([][3]float64, 0)
	contenders := locks.contenders(asked)
	until := now() + asked.Millis*1000
	var mutex sync.Mutex
	var all sync.WaitGroup
	for i := range asked.Names {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for {
				began := now()
				if began >= until {
					return
				}
				contenders[i].lock()
				entered := now()
				time.Sleep(time.Duration(asked.Section) * time.Millisecond)
				if asked.Trace {
					mutex.Lock()
					sections = append(sections, [3]float64{entered, now(), float64(i)})
					mutex.Unlock()
				}
				contenders[i].unlock()
				totals[i]++
				if ended := now(); ended <= until {
					counts[i]++
					latencies[i] = append(latencies[i], ended-began)
				}
			}
		}(i)
	}
	all.Wait()
	flat := make([]float64, 0)
	total := 0
	for i := range asked.Names {
		flat = append(flat, latencies[i]...)
		total += totals[i]
	}
	return object{"counts": counts, "total": total, "latencies": flat, "sections": sections, "overlaps": 0}
}

func tries(asked request) object {
	latencies := make([]float64, 0)
	taken := 0
	contender := locks.contenders(request{Names: []string{asked.Name}})[0]
	until := now() + asked.Millis*1000
	for {
		began := now()
		if began >= until {
			return object{"latencies": latencies, "taken": taken}
		}
		if contender.try() {
			taken++
		}
		latencies = append(latencies, now()-began)
	}
}

// Those that hold what was asked for, as a program has them.
var held []contender

func hold(asked request) object {
	contenders := locks.contenders(asked)
	held = append(held, contenders...)
	began := now()
	var all sync.WaitGroup
	for _, each := range contenders {
		all.Add(1)
		go func(each contender) {
			defer all.Done()
			each.lock()
		}(each)
	}
	all.Wait()
	return object{"millis": (now() - began) / 1000}
}

var (
	turns     []float64
	turnsLock sync.Mutex
)

func lineUp(asked request) object {
	began := now()
	for i := 0; i < asked.Count; i++ {
		// each has a session of its own: the lock does not keep those of one session apart
		go func() {
			waiter := locks.own(asked.Name)
			waiter.lock()
			turnsLock.Lock()
			turns = append(turns, now())
			turnsLock.Unlock()
			waiter.unlock()
		}()
	}
	return object{"millis": (now() - began) / 1000}
}

func drain(asked request) object {
	until := now() + asked.Millis*1000
	for {
		turnsLock.Lock()
		had := len(turns)
		turnsLock.Unlock()
		if had >= asked.Count || now() >= until {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	turnsLock.Lock()
	defer turnsLock.Unlock()
	return object{"began": append([]float64{}, turns...)}
}

func usage(asked request) object {
	if asked.Collect {
		runtime.GC()
		runtime.GC()
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	var used unix.Rusage
	check(unix.Getrusage(unix.RUSAGE_SELF, &used))
	cpu := float64(used.Utime.Nano()+used.Stime.Nano()) / 1e6
	return object{"heapBytes": memory.HeapAlloc, "cpuMillis": cpu}
}

func lead(asked request) object {
	session := newSession(client)
	election := concurrency.NewElection(session, asked.Name)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)
	go func() {
		<-terminated
		check(election.Resign(ctx))
		check(session.Close())
		os.Exit(0)
	}()
	check(election.Campaign(ctx, "go"))
	return object{"began": now()}
}

// ---------------------------------------------------------------------------
// the locks
// ---------------------------------------------------------------------------

type locker interface {
	contenders(asked request) []contender
	own(name string) contender
}

type contender interface {
	lock()
	unlock()
	try() bool
}

type sessions struct {
	make   func(session *concurrency.Session, name string, claim string) contender
	shared []*concurrency.Session
	// each on a connection of its own
	apart []*concurrency.Session
}

func newSession(client *clientv3.Client) *concurrency.Session {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	check(err)
	return session
}

// One session for the process, and a further one for each further contender of the same lock.
func (s *sessions) contenders(asked request) []contender {
	seen := map[string]int{}
	all := make([]contender, len(asked.Names))
	for i, name := range asked.Names {
		if asked.Apart {
			if len(s.apart) <= i {
				s.apart = append(s.apart, newSession(connect()))
			}
			all[i] = s.make(s.apart[i], name, asked.Claim)
			continue
		}
		if asked.Claim == "several" {
			// several of these share each lock
			seen[name] = i
		}
		for len(s.shared) <= seen[name] {
			s.shared = append(s.shared, newSession(client))
		}
		all[i] = s.make(s.shared[seen[name]], name, asked.Claim)
		seen[name]++
	}
	return all
}

func (s *sessions) own(name string) contender { return s.make(newSession(client), name, "") }

type mutex struct {
	*concurrency.Mutex
	session *concurrency.Session
	name    string
}

func newMutex(session *concurrency.Session, name string, claim string) contender {
	if claim == "several" {
		return newSeveral(session, name)
	}
	return mutex{concurrency.NewMutex(session, name), session, name}
}

func (m mutex) lock()   { check(m.Lock(ctx)) }
func (m mutex) unlock() { check(m.Unlock(ctx)) }

// TryLock as it is since 3.5, the concurrency package of 3.4 having none, and Unlock where it was not in vain.
func (m mutex) try() bool {
	key := fmt.Sprintf("%s/%x", m.name, m.session.Lease())
	got, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, "", clientv3.WithLease(m.session.Lease())), clientv3.OpGet(m.name+"/", clientv3.WithFirstCreate()...)).
		Else(clientv3.OpGet(key), clientv3.OpGet(m.name+"/", clientv3.WithFirstCreate()...)).
		Commit()
	check(err)
	first := got.Responses[1].GetResponseRange().Kvs
	_, err = client.Delete(ctx, key)
	check(err)
	return len(first) == 0 || string(first[0].Key) == key
}

// Several mutexes one inside the other, in the order of their names, since contenders would wait for each other otherwise.
type several []contender

func newSeveral(session *concurrency.Session, name string) contender {
	start := strings.LastIndex(name, "/") + 1
	names := strings.Split(name[start:], "+")
	sort.Strings(names)
	all := several{}
	for _, one := range names {
		all = append(all, newMutex(session, name[:start]+one, ""))
	}
	return all
}

func (all several) lock() {
	for _, one := range all {
		one.lock()
	}
}

func (all several) unlock() {
	for i := len(all) - 1; i >= 0; i-- {
		all[i].unlock()
	}
}

func (several) try() bool {
	panic("only single ones are tried")
}

type rwMutex struct {
	*recipe.RWMutex
	reads bool
}

func newRWMutex(session *concurrency.Session, name string, claim string) contender {
	return rwMutex{recipe.NewRWMutex(session, name), claim == "read"}
}

func (m rwMutex) lock() {
	if m.reads {
		check(m.RLock())
	} else {
		check(m.Lock())
	}
}

func (m rwMutex) unlock() {
	if m.reads {
		check(m.RUnlock())
	} else {
		check(m.Unlock())
	}
}

func (rwMutex) try() bool {
	panic("the recipe has no try")
}

type raw struct{}

func (r raw) contenders(asked request) []contender {
	all := make([]contender, len(asked.Names))
	for i, name := range asked.Names {
		all[i] = r.own(name)
	}
	return all
}

func (raw) own(name string) contender { return key{name + "/raw"} }

type key struct{ key string }

func (k key) lock() {
	_, err := client.Put(ctx, k.key, "")
	check(err)
}

func (k key) unlock() {
	_, err := client.Delete(ctx, k.key)
	check(err)
}

func (k key) try() bool {
	panic("the raw client has nothing to try")
}

// ---------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------

var sayLock sync.Mutex

func say(reply object) {
	line, err := json.Marshal(reply)
	check(err)
	sayLock.Lock()
	defer sayLock.Unlock()
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		say(object{"error": err.Error()})
		os.Exit(1)
	}
}

// Microseconds of the clock that process.hrtime has in Node.
func now() float64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return float64(t.Sec)*1e6 + float64(t.Nsec)/1e3
}

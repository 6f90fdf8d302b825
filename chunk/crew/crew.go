// Package crew is the one place where the packages below cmd start goroutines,
// so that a crash in any of them can be announced before it ends the program:
// whoever runs a transfer can still tell the user how to resume it.
package crew

import (
	"slices"
	"sync"
	"time"
)

// A Crew is a number of goroutines that somebody waits for. The zero Crew has
// none. It must not be copied.
type Crew struct{ wg sync.WaitGroup }

// Go runs f in a goroutine of its own. The rules are those of sync.WaitGroup.Go.
func (c *Crew) Go(f func()) { c.wg.Go(Guard(f)) }

// Wait returns when every goroutine has ended. If one has crashed it never
// does, so that the program ends with that goroutine's trace.
func (c *Crew) Wait() { c.wg.Wait() }

// Guard returns f with the announcement of a crash, for goroutines that others
// start: those of context.AfterFunc, or main.
func Guard(f func()) func() {
	return func() {
		defer func() {
			v := recover()
			if v == nil {
				return // it has returned, or called runtime.Goexit
			}
			announce(v)
			panic(v) // the trace still begins where f has crashed
		}()
		f()
	}
}

var (
	mu        sync.Mutex
	listeners []*func(any)
	first     sync.Once
)

// OnCrash lets f be called with the value of the panic before that ends the
// program. Only the first crash is announced. The program waits for f, but not
// for longer than patience: who crashed may hold a lock that f needs. undo takes
// it back.
func OnCrash(f func(v any)) (undo func()) {
	mu.Lock()
	defer mu.Unlock()
	l := &f
	listeners = append(listeners, l)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		listeners = slices.DeleteFunc(listeners, func(o *func(any)) bool { return o == l })
	}
}

const patience = 2 * time.Second

// announce returns when the first crash has been announced, whoever had it.
func announce(v any) {
	first.Do(func() {
		mu.Lock()
		all := slices.Clone(listeners)
		mu.Unlock()
		said := make(chan struct{})
		go func() {
			defer close(said)
			for _, f := range all {
				(*f)(v)
			}
		}()
		select {
		case <-said:
		case <-time.After(patience):
		}
	})
}

// SPDX-License-Identifier: MIT OR Apache-2.0

// A Go program that knows its own numbers: a line on its stdin is a command, it answers with one line.
//
//	receive N, select N, sleep N, lock N, read N   N goroutines that wait so
//	end           those of receive, select and lock end
//	gc N          N garbage collections
//	keep BYTES    allocates and keeps them
//	churn N       from now on N goroutines make others all the time, which end at once; 0: no more
//	exec          becomes itself anew
//	fork          starts a process that does nothing
//	copy          a copy of this process that does nothing, where C is built in
//	child N       starts another one of itself, with 2 collections and N goroutines that wait; the answer is its state
//	state         what the runtime says of itself, as JSON
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	release     = make(chan struct{})
	mutex       sync.Mutex
	kept        [][]byte
	pipes       []*os.File
	staying     int // goroutines that never end
	churning    atomic.Int64
	churners    sync.WaitGroup
	copyProcess func()
	stacks      = make([]byte, 16<<20)
	samples     = []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/sched/gomaxprocs:threads"},
		{Name: "/gc/gomemlimit:bytes"},
	}
)

type state struct {
	Goroutines         int
	All                uint64         // since Go 1.26 with the runtime's own
	Census             map[string]int // by what stands in brackets in a stack trace
	Heap, Live         uint64
	MaxProcs, MemLimit uint64
	Cycles, PauseTotal int64
	Pauses             []int64 // the latest first
}

func main() {
	mutex.Lock()
	fmt.Println("READY")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var command string
		var n int
		fmt.Sscan(in.Text(), &command, &n)
		fmt.Println(obey(command, n))
	}
}

func obey(command string, n int) string {
	switch command {
	case "receive":
		start(n, func() { <-release })
	case "select":
		other := make(chan int)
		start(n, func() {
			select {
			case <-release:
			case <-other:
			}
		})
	case "sleep":
		staying += n
		start(n, func() { time.Sleep(time.Hour) })
	case "lock":
		start(n, func() {
			mutex.Lock()
			mutex.Unlock() //nolint:staticcheck // the lock is what it waits for
		})
	case "read":
		for i := 0; i < n; i++ {
			r, w, err := os.Pipe()
			if err != nil {
				return err.Error()
			}
			pipes = append(pipes, r, w)
			staying++
			start(1, func() { r.Read(make([]byte, 1)) })
		}
	case "end":
		close(release)
		release = make(chan struct{})
		mutex.Unlock()
		for runtime.NumGoroutine() > 1+staying {
			time.Sleep(time.Millisecond)
		}
		mutex.Lock()
	case "gc":
		for i := 0; i < n; i++ {
			runtime.GC()
		}
	case "keep":
		one := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			one[i] = 1
		}
		kept = append(kept, one)
	case "churn":
		churning.Store(int64(n))
		if n == 0 {
			churners.Wait()
		}
		churners.Add(n)
		for i := 0; i < n; i++ {
			go churn()
		}
	case "exec":
		return fmt.Sprint(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	case "fork":
		if err := exec.Command("/bin/true").Run(); err != nil {
			return err.Error()
		}
	case "copy":
		copyProcess()
	case "child":
		return child(n)
	case "state":
		return tell()
	default:
		return "no such command"
	}
	return "OK"
}

func child(n int) string {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err.Error()
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err.Error()
	}
	runtime.LockOSThread() // it ends with the thread that has started it
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	answers := bufio.NewReaderSize(out, 1<<20)
	fmt.Fprintf(in, "receive %d\ngc 2\nstate\n", n)
	answer := ""
	for i := 0; i < 4; i++ { // READY, OK, OK
		if answer, err = answers.ReadString('\n'); err != nil {
			return err.Error()
		}
	}
	return strings.TrimSpace(answer)
}

func start(n int, wait func()) {
	for i := 0; i < n; i++ {
		go wait()
	}
}

func churn() {
	defer churners.Done()
	for churning.Load() > 0 {
		var all sync.WaitGroup
		for i := 0; i < 200; i++ {
			all.Add(1)
			go func() {
				runtime.Gosched()
				all.Done()
			}()
		}
		all.Wait()
	}
}

func tell() string {
	var now state
	now.Census = census()
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	now.Cycles, now.PauseTotal = stats.NumGC, int64(stats.PauseTotal)
	for _, pause := range stats.Pause {
		now.Pauses = append(now.Pauses, int64(pause))
	}
	metrics.Read(samples)
	now.Goroutines, now.All = runtime.NumGoroutine(), samples[0].Value.Uint64()
	now.Heap, now.Live = samples[1].Value.Uint64(), samples[2].Value.Uint64()
	now.MaxProcs, now.MemLimit = samples[3].Value.Uint64(), samples[4].Value.Uint64()
	out, err := json.Marshal(now)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// census leaves out the runtime's own goroutines.
func census() map[string]int {
	found := map[string]int{}
	for _, line := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n") {
		if !strings.HasPrefix(line, "goroutine ") {
			continue
		}
		_, line, _ = strings.Cut(line, "[")
		line, _, _ = strings.Cut(line, "]")
		line, _, _ = strings.Cut(line, ",")
		found[line]++
	}
	return found
}

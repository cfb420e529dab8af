// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	// writeSlice is how long one write may wait before the sender looks whether it should stop.
	writeSlice = 200 * time.Millisecond
)

var errClosed = errors.New("boxoevents: closed before everything was sent")

// sender owns the socket. The kernel queues only a few datagrams (net.unix.max_dgram_qlen, often 10): the sender's
// goroutine waits there for the agent, callers never do. A datagram is given up only when closing.
type sender struct {
	path string
	// grace is how long an absent agent is waited for before recording is switched off.
	grace  time.Duration
	gate   *gate
	stop   <-chan struct{} // closed when Close begins
	giveUp func() bool     // true when Close has waited long enough

	conn       *net.UnixConn
	lostAt     time.Time
	nextTry    time.Time
	retry      time.Duration
	reconnects int

	connected atomic.Bool
	datagrams atomic.Uint64
	bytes     atomic.Uint64
	lastError atomic.Pointer[error]
}

func (s *sender) fail(err error) {
	s.lastError.Store(&err)
}

// connect makes sure there is a connection, and says whether there is. It tries at most as often as retry says.
func (s *sender) connect(now time.Time) bool {
	if s.conn != nil {
		return true
	}
	if now.Before(s.nextTry) {
		return false
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		s.fail(err)
		if s.lostAt.IsZero() {
			s.lostAt = now
		}
		if now.Sub(s.lostAt) >= s.grace {
			s.gate.set(false)
		}
		s.retry = min(max(2*s.retry, firstRetry), lastRetry)
		s.nextTry = now.Add(s.retry)
		return false
	}
	s.conn, s.lostAt, s.retry = conn, time.Time{}, 0
	s.reconnects++
	s.connected.Store(true)
	s.gate.set(true)
	return true
}

func (s *sender) disconnect() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
	s.connected.Store(false)
	s.lostAt = time.Now()
}

// send delivers one datagram, however long that takes, unless Close gives up.
func (s *sender) send(datagram []byte) error {
	for {
		if s.giveUp() {
			return errClosed
		}
		now := time.Now()
		if !s.connect(now) {
			select {
			case <-time.After(min(time.Until(s.nextTry), writeSlice)):
			case <-s.stop:
				time.Sleep(writeSlice / 20)
			}
			continue
		}
		_ = s.conn.SetWriteDeadline(now.Add(writeSlice))
		_, err := s.conn.Write(datagram)
		switch {
		case err == nil:
			s.datagrams.Add(1)
			s.bytes.Add(uint64(len(datagram)))
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The agent's queue is full: go on waiting.
		case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EINTR):
			time.Sleep(writeSlice / 20)
		default:
			s.fail(err)
			s.disconnect()
		}
	}
}

// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"math"
	"strconv"
	"strings"
)

// datagramSize is the most that one datagram carries: the agent's receive buffer for one.
const datagramSize = 8192

// maxLineID bounds name and tags of one line, so that a line with one value always fits a datagram.
const maxLineID = 1024

// encoder packs lines into datagrams. When one is full it is handed to send, and the next begins.
// One goroutine only.
type encoder struct {
	buf   []byte
	head  int    // length of the sequence line that every datagram begins with
	tags  string // that every line carries, as in lineID
	begin func(buf []byte) []byte
	send  func(datagram []byte) error
	tail  []byte // what closes the open line of samples: type, rate, tags
	open  *lineID
	rate  float64
	spare []float64 // what the next shard of samples goes on with
	lost  int64     // samples that were taken, but could not be sent
}

// lineID is what a series' lines have in common.
type lineID struct {
	name string
	kind string // c, g, ms, h
	tags string // "|#a:b,c:d", or empty
}

// room makes place for n more bytes, in a new datagram if this one is too full. No line is open then.
func (e *encoder) room(n int) error {
	e.closeLine()
	if len(e.buf) > 0 && len(e.buf)+n > datagramSize {
		if err := e.flush(); err != nil {
			return err
		}
	}
	if len(e.buf) == 0 {
		e.buf = e.begin(e.buf)
		e.head = len(e.buf)
	}
	return nil
}

func (e *encoder) flush() error {
	e.closeLine()
	if len(e.buf) <= e.head {
		return nil
	}
	datagram := e.buf
	e.buf = e.buf[:0]
	return e.send(datagram)
}

func (e *encoder) closeLine() {
	if e.open != nil {
		e.buf = append(e.buf, e.tail...)
		e.open = nil
	}
}

func (e *encoder) counter(id *lineID, n int64) error {
	if err := e.room(e.lineLength(id) + 32); err != nil {
		return err
	}
	e.buf = append(append(e.buf, id.name...), ':')
	e.buf = strconv.AppendInt(e.buf, n, 10)
	e.finish(id)
	return nil
}

func (e *encoder) gauge(id *lineID, v float64) error {
	if err := e.room(2 * (e.lineLength(id) + 64)); err != nil {
		return err
	}
	if math.Signbit(v) && v != 0 {
		// A leading sign means "adjust by": go to zero first.
		e.buf = append(append(e.buf, id.name...), ":0"...)
		e.finish(id)
	}
	e.buf = append(append(e.buf, id.name...), ':')
	e.buf = appendNumber(e.buf, v)
	e.finish(id)
	return nil
}

func (e *encoder) lineLength(id *lineID) int {
	return len(id.name) + len(id.tags) + len(e.tags)
}

func (e *encoder) finish(id *lineID) {
	e.buf = append(append(e.buf, '|'), id.kind...)
	e.buf = e.endLine(e.buf, id)
}

func (e *encoder) endLine(buf []byte, id *lineID) []byte {
	tags := id.tags
	if e.tags != "" {
		buf = append(buf, e.tags...)
		if tags != "" {
			buf, tags = append(buf, ','), tags[len("|#"):]
		}
	}
	return append(append(buf, tags...), '\n')
}

// sample adds one value that stands for weight observations; values of one series and weight share a line.
func (e *encoder) sample(id *lineID, v float64, weight uint64) error {
	rate := 1 / float64(weight)
	if e.open != id || e.rate != rate || len(e.buf)+len(e.tail)+32 > datagramSize {
		if err := e.room(e.lineLength(id) + 96); err != nil {
			return err
		}
		e.buf = append(e.buf, id.name...)
		e.tail = append(append(e.tail[:0], '|'), id.kind...)
		if weight > 1 {
			e.tail = appendNumber(append(e.tail, "|@"...), rate)
		}
		e.tail = e.endLine(e.tail, id)
		e.open, e.rate = id, rate
	}
	e.buf = appendNumber(append(e.buf, ':'), v)
	return nil
}

// appendNumber writes v exactly. Readers of the protocol differ about exponents, so common magnitudes have none.
func appendNumber(buf []byte, v float64) []byte {
	if a := math.Abs(v); a != 0 && (a < 1e-9 || a >= 1e21) {
		return strconv.AppendFloat(buf, v, 'g', -1, 64)
	}
	return strconv.AppendFloat(buf, v, 'f', -1, 64)
}

// tagText gives "|#key:value,…" of "key:value" tags, with what would end a tag or a line made harmless.
func tagText(tags ...string) string {
	if len(tags) == 0 {
		return ""
	}
	clean := make([]string, len(tags))
	for i, tag := range tags {
		clean[i] = cleanTag(tag)
	}
	return "|#" + strings.Join(clean, ",")
}

func cleanTag(tag string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == ',' || r == '|' || r == '#' || r == 0x7f {
			return '_'
		}
		return r
	}, tag)
}

// The bench's load: a client that asks over kept-alive connections and reads every answer whole, and an origin for large bodies. In Go, so
// that the generator costs less than what it measures; the standard library alone. Started by load.ts, pinned to the load's core.
//
// The client opens and warms all connections, says "ready", waits for a line, runs, and prints one line of JSON. Without a rate every
// connection asks as soon as it was answered (throughput). With a rate requests are due on a fixed schedule whatever the answers do, by
// any free connection, and an answer's time counts from when its request was due, so that a stall is felt by all that fell into it
// (coordinated omission is not possible).
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	Address     string   // host:port that is dialled
	Connect     string   // authority of a CONNECT sent first; empty: none
	ServerName  string   // TLS with this name; empty: clear text
	CaFile      string   // what TLS is verified against
	Requests    []string // sent in turn, heads without body
	UploadBytes int64    // length of the body after each of them
	Expect      string   // body of every answer; empty: any of ExpectBytes
	ExpectBytes int64
	Connections int
	Seconds     float64
	Rate        float64 // requests a second in all; 0: as many as are answered
}

type result struct {
	Answered   int64 // rightly
	Failed     int64 // wrong status, length or content, or no answer
	Unserved   int64 // due, and not answered when the time was over
	Seconds    float64
	P50, P99   float64 // ms
	Max        float64
	Late       float64 // ms, p99: how late the schedule itself ran
	FirstWrong string
}

type connection struct {
	net.Conn
	reader *bufio.Reader
}

var piece = bytes.Repeat([]byte("x"), 64*1024)

func open(o *options, roots *x509.CertPool) (*connection, error) {
	raw, err := net.DialTimeout("tcp", o.Address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	if o.Connect != "" {
		fmt.Fprintf(raw, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.Connect, o.Connect)
		// Byte by byte: what follows the head is TLS.
		head := make([]byte, 0, 256)
		one := make([]byte, 1)
		for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
			if _, err := raw.Read(one); err != nil {
				return nil, fmt.Errorf("CONNECT: %w", err)
			}
			head = append(head, one[0])
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) && !bytes.HasPrefix(head, []byte("HTTP/1.0 200")) {
			return nil, fmt.Errorf("CONNECT: %s", firstLine(head))
		}
	}
	if o.ServerName == "" {
		return &connection{raw, bufio.NewReaderSize(raw, 64*1024)}, nil
	}
	secured := tls.Client(raw, &tls.Config{ServerName: o.ServerName, RootCAs: roots, NextProtos: []string{"http/1.1"}})
	if err := secured.Handshake(); err != nil {
		return nil, err
	}
	return &connection{secured, bufio.NewReaderSize(secured, 64*1024)}, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(text), "\r\n")
	return line
}

// One request and its whole answer.
func (c *connection) exchange(o *options, request []byte, expected []byte, scratch []byte) error {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(request); err != nil {
		return err
	}
	for left := o.UploadBytes; left > 0; {
		next := piece
		if left < int64(len(next)) {
			next = next[:left]
		}
		if _, err := c.Write(next); err != nil {
			return err
		}
		left -= int64(len(next))
	}
	length := int64(-1)
	status := ""
	for first := true; ; first = false {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			status = string(line)
			continue
		}
		if len(line) == 0 {
			break
		}
		if len(line) > 15 && (line[0] == 'C' || line[0] == 'c') && bytes.EqualFold(line[:15], []byte("content-length:")) {
			length, err = strconv.ParseInt(strings.TrimSpace(string(line[15:])), 10, 64)
			if err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without Content-Length: " + status)
	}
	isGood := len(status) >= 12 && status[9:12] == "200"
	same := true
	said := ""
	read := int64(0)
	for read < length {
		want := int64(len(scratch))
		if length-read < want {
			want = length - read
		}
		n, err := c.reader.Read(scratch[:want])
		if err != nil {
			return err
		}
		if expected != nil {
			same = same && read+int64(n) <= int64(len(expected)) && bytes.Equal(scratch[:n], expected[read:read+int64(n)])
		}
		if said == "" && !isGood {
			said = string(scratch[:n])
		}
		read += int64(n)
	}
	if !isGood {
		if len(said) > 200 {
			said = said[:200]
		}
		return errors.New(status + ": " + said)
	}
	if !same || (expected != nil && read != int64(len(expected))) || (expected == nil && read != o.ExpectBytes) {
		return fmt.Errorf("an answer of %d bytes that is not what the origin said", read)
	}
	return nil
}

type tally struct {
	answered, failed int64
	times            []int64
	wrong            string
}

func client(o *options) error {
	var roots *x509.CertPool
	if o.CaFile != "" {
		pem, err := os.ReadFile(o.CaFile)
		if err != nil {
			return err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + o.CaFile)
		}
	}
	var expected []byte
	if o.Expect != "" {
		expected = []byte(o.Expect)
	}
	connections := make([]*connection, o.Connections)
	tallies := make([]tally, o.Connections)
	scratch := make([]byte, 64*1024)
	for i := range connections {
		opened, err := open(o, roots)
		if err != nil {
			return err
		}
		connections[i] = opened
		if err := opened.exchange(o, []byte(o.Requests[i%len(o.Requests)]), expected, scratch); err == nil {
			continue
		} else if o.Connections == 1 {
			return err
		} else {
			tallies[i] = tally{failed: 1, wrong: err.Error()}
		}
		if connections[i], err = open(o, roots); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')

	var due chan time.Time
	var late []int64
	begun := time.Now()
	end := begun.Add(time.Duration(o.Seconds * float64(time.Second)))
	if o.Rate > 0 {
		due = make(chan time.Time, int(o.Rate*o.Seconds)+1)
		go func() {
			// A thread of its own: the runtime's timers are a millisecond coarse.
			runtime.LockOSThread()
			interval := float64(time.Second) / o.Rate
			for i := 0; float64(i) < o.Rate*o.Seconds; i++ {
				at := begun.Add(time.Duration(float64(i) * interval))
				if wait := time.Until(at); wait > 0 {
					pause := syscall.NsecToTimespec(int64(wait))
					syscall.Nanosleep(&pause, nil)
				}
				late = append(late, int64(time.Since(at)))
				due <- at
			}
			close(due)
		}()
	}
	var all sync.WaitGroup
	for i := range connections {
		all.Add(1)
		go func(c *connection, t *tally, turn int) {
			defer all.Done()
			buffer := make([]byte, 64*1024)
			for {
				var from time.Time
				if due != nil {
					next, isDue := <-due
					if !isDue || time.Now().After(end) {
						return
					}
					from = next
				} else {
					from = time.Now()
					if from.After(end) {
						return
					}
				}
				err := c.exchange(o, []byte(o.Requests[turn%len(o.Requests)]), expected, buffer)
				turn++
				if err == nil {
					t.answered++
					t.times = append(t.times, int64(time.Since(from)))
					continue
				}
				t.failed++
				if t.wrong == "" {
					t.wrong = err.Error()
				}
				c.Close()
				if c, err = open(o, roots); err != nil {
					t.wrong += ", then: " + err.Error()
					return
				}
			}
		}(connections[i], &tallies[i], i)
	}
	all.Wait()
	r := result{Seconds: time.Since(begun).Seconds()}
	var times []int64
	for _, t := range tallies {
		r.Answered += t.answered
		r.Failed += t.failed
		times = append(times, t.times...)
		if r.FirstWrong == "" {
			r.FirstWrong = t.wrong
		}
	}
	if o.Rate > 0 {
		r.Unserved = int64(o.Rate*o.Seconds) - r.Answered
		r.Late = at(late, 0.99)
	}
	r.P50, r.P99, r.Max = at(times, 0.5), at(times, 0.99), at(times, 1)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}

// The value below which this share lies, in ms.
func at(times []int64, share float64) float64 {
	if len(times) == 0 {
		return 0
	}
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	index := int(share * float64(len(times)))
	if index >= len(times) {
		index = len(times) - 1
	}
	return float64(times[index]) / 1e6
}

// GET /bytes/N answers with N bytes; anything with a body with the number of bytes it had. What carries no credential is 403.
func origin(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().String())
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.Method != http.MethodGet {
			n, _ := io.CopyBuffer(io.Discard, r.Body, make([]byte, 256*1024))
			text := strconv.FormatInt(n, 10)
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			io.WriteString(w, text)
			return
		}
		left, _ := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/bytes/"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
		for left > 0 {
			next := piece
			if left < int64(len(next)) {
				next = next[:left]
			}
			n, err := w.Write(next)
			if err != nil {
				return
			}
			left -= int64(n)
		}
	}))
}

func main() {
	var err error
	switch os.Args[1] {
	case "origin":
		err = origin(os.Args[2])
	default:
		o := &options{}
		if err = json.Unmarshal([]byte(os.Args[2]), o); err == nil {
			err = client(o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

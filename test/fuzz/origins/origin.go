// An origin on Go's net/http: says its port, then one line of JSON for each request that it read.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	var mutex sync.Mutex
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line, _ := json.Marshal(map[string]string{"path": r.RequestURI, "authorization": strings.Join(r.Header["Authorization"], ",")})
		mutex.Lock()
		fmt.Println(string(line))
		mutex.Unlock()
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	})))
}

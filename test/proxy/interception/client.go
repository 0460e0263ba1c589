// A Go program that is told what to trust by SSL_CERT_FILE: client ADDRESS PORT HOST
package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
)

func main() {
	connection, err := tls.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]), &tls.Config{ServerName: os.Args[3]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok", connection.ConnectionState().PeerCertificates[0].Subject)
	connection.Close()
}

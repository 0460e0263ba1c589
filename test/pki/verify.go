// Judges a certificate as Go's TLS clients do: verify AUTHORITY.pem CERTIFICATE.pem [HOST]
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func verify(authority, certificate []byte, host string) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return fmt.Errorf("the authority was not read")
	}
	block, _ := pem.Decode(certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
	return err
}

func main() {
	authority, _ := os.ReadFile(os.Args[1])
	certificate, _ := os.ReadFile(os.Args[2])
	if err := verify(authority, certificate, os.Args[3]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Starts TLS handshakes with 127.0.0.1:PORT and reads nothing: `hello PORT NAME plain|ech`. With ech, NAME is encrypted and the outer
// hello asks for outer.example.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"os"
)

// One ECHConfig in a list (RFC 9849 section 4): X25519, HKDF-SHA256, AES-128-GCM.
func configList() []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	public := key.PublicKey().Bytes()
	contents := []byte{7, 0x00, 0x20}
	contents = binary.BigEndian.AppendUint16(contents, uint16(len(public)))
	contents = append(contents, public...)
	contents = append(contents, 0, 4, 0x00, 0x01, 0x00, 0x01, 64)
	name := "outer.example"
	contents = append(contents, byte(len(name)))
	contents = append(contents, name...)
	contents = append(contents, 0, 0)
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(contents)))
	config = append(config, contents...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

func main() {
	config := &tls.Config{ServerName: os.Args[2], NextProtos: []string{"h2", "http/1.1"}}
	if os.Args[3] == "ech" {
		config.EncryptedClientHelloConfigList = configList()
		config.MinVersion = tls.VersionTLS13
	}
	connection, err := tls.Dial("tcp", "127.0.0.1:"+os.Args[1], config)
	if err == nil {
		connection.Close()
	}
}

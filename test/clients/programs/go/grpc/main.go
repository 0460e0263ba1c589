// One gRPC call of each kind with grpc-go: `grpc HOST:PORT [clear]`. Prints a JSON line for each. The proxy and the roots come from the
// environment (HTTPS_PROXY, SSL_CERT_FILE).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const limit = 20 * time.Second

func report(call string, err error, messages []string, trailer metadata.MD) {
	final := status.Convert(err)
	if err == io.EOF {
		final = status.New(0, "")
	}
	own := ""
	if values := trailer.Get("x-outrider-trailer"); len(values) > 0 {
		own = values[0]
	}
	if messages == nil {
		messages = []string{}
	}
	line, _ := json.Marshal(map[string]any{
		"call": call, "code": final.Code(), "details": final.Message(), "messages": messages, "trailer": own,
	})
	fmt.Println(string(line))
}

func outgoing(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer mine")
	return context.WithTimeout(ctx, timeout)
}

func unary(conn *grpc.ClientConn, method string, timeout time.Duration) {
	ctx, cancel := outgoing(timeout)
	defer cancel()
	var trailer metadata.MD
	var messages []string
	answer := &wrapperspb.StringValue{}
	err := conn.Invoke(ctx, "/outrider.test.Echo/"+method, wrapperspb.String("hello"), answer, grpc.Trailer(&trailer))
	if err == nil {
		messages = append(messages, answer.Value)
	}
	report(method, err, messages, trailer)
}

type call struct {
	stream grpc.ClientStream
	cancel context.CancelFunc
}

func open(conn *grpc.ClientConn, method string) call {
	ctx, cancel := outgoing(limit)
	kind := &grpc.StreamDesc{StreamName: method, ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, kind, "/outrider.test.Echo/"+method)
	if err != nil {
		panic(err)
	}
	return call{stream, cancel}
}

func (c call) send(texts ...string) {
	for _, text := range texts {
		if err := c.stream.SendMsg(wrapperspb.String(text)); err != nil {
			panic(err)
		}
	}
}

func (c call) receive() (string, error) {
	answer := &wrapperspb.StringValue{}
	err := c.stream.RecvMsg(answer)
	return answer.Value, err
}

// Receives until the end of the stream and reports it; `next` is called after each message.
func (c call) finish(name string, next func(count int)) {
	defer c.cancel()
	var messages []string
	for {
		text, err := c.receive()
		if err != nil {
			report(name, err, messages, c.stream.Trailer())
			return
		}
		messages = append(messages, text)
		next(len(messages))
	}
}

func main() {
	security := credentials.NewTLS(nil)
	if len(os.Args) > 2 {
		security = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(security))
	if err != nil {
		panic(err)
	}
	defer conn.Close()

	unary(conn, "Unary", limit)

	down := open(conn, "ServerStream")
	down.send("3")
	down.stream.CloseSend()
	down.finish("ServerStream", func(int) {})

	up := open(conn, "ClientStream")
	up.send("a", "b", "c")
	up.stream.CloseSend()
	up.finish("ClientStream", func(int) {})

	// Each message waits for the answer to the one before: neither direction may be held back for the other.
	both := open(conn, "Bidi")
	both.send("1")
	both.finish("Bidi", func(count int) {
		if count < 3 {
			both.send(fmt.Sprint(count + 1))
		} else {
			both.stream.CloseSend()
		}
	})

	unary(conn, "Fails", limit)
	unary(conn, "Silent", 400*time.Millisecond)

	endless := open(conn, "ServerStream")
	endless.send("0")
	endless.stream.CloseSend()
	endless.finish("Cancel", func(int) { endless.cancel() })

	unary(conn, "Forbidden", limit)
}

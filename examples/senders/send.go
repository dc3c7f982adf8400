// Send one postback from Go, with nothing but its standard library: go run send.go ACCOUNT EVENT.json [ID]
// The broker is POSTBACKS_BROKER_URL: redis://user:password@host:6379/0, or rediss:// for TLS.
package main

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

const timeout = 3 * time.Second

func sendPostback(account string, event json.RawMessage, id string) error {
	type object = map[string]any
	body, err := json.Marshal([]any{[]any{account, event}, object{}, object{}})
	if err != nil {
		return err
	}
	message, err := json.Marshal(object{
		"body":             base64.StdEncoding.EncodeToString(body),
		"content-encoding": "utf-8",
		"content-type":     "application/json",
		"headers":          object{"lang": "go", "task": "postbacks.send_postback", "id": id},
		"properties": object{
			"correlation_id": id,
			"delivery_mode":  2,
			"delivery_info":  object{"exchange": "", "routing_key": "postbacks"},
			"priority":       0,
			"body_encoding":  "base64",
			"delivery_tag":   uuid4(),
		},
	})
	if err != nil {
		return err
	}
	return push(string(message))
}

// push pushes a message onto the queue of postbacks; once it returns nil, the message is accepted.
func push(message string) error {
	broker, err := url.Parse(os.Getenv("POSTBACKS_BROKER_URL"))
	// What is behind a ? may be the number of the database: not read, it would be the wrong one.
	if err != nil || (broker.Scheme != "redis" && broker.Scheme != "rediss") || broker.RawQuery != "" {
		return errors.New("POSTBACKS_BROKER_URL is no redis:// or rediss:// URL without options behind a ?")
	}
	port := broker.Port()
	if port == "" {
		port = "6379"
	}
	address := net.JoinHostPort(broker.Hostname(), port)
	dialer := &net.Dialer{Timeout: timeout}
	var connection net.Conn
	if broker.Scheme == "rediss" {
		connection, err = tls.DialWithDialer(dialer, "tcp", address, nil)
	} else {
		connection, err = dialer.Dial("tcp", address)
	}
	if err != nil {
		return fmt.Errorf("the broker cannot be reached: %w", err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(timeout))
	answers := bufio.NewReader(connection)
	if password, ok := broker.User.Password(); ok {
		login := []string{"AUTH", password}
		if name := broker.User.Username(); name != "" {
			login = []string{"AUTH", name, password}
		}
		if err := command(connection, answers, login...); err != nil {
			return err
		}
	}
	database := strings.Trim(broker.Path, "/")
	if database == "" {
		database = "0"
	}
	if err := command(connection, answers, "SELECT", database); err != nil {
		return err
	}
	return command(connection, answers, "LPUSH", "postbacks", message)
}

// command sends one command in Redis's protocol, and reads its one line of an answer.
func command(connection io.Writer, answers *bufio.Reader, words ...string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(word), word)
	}
	_, err := io.WriteString(connection, text.String())
	answer := ""
	if err == nil {
		answer, err = answers.ReadString('\n')
	}
	if err != nil {
		return fmt.Errorf("%w; whether the broker has the message is not known", err)
	}
	if strings.HasPrefix(answer, "-") {
		return errors.New("the broker refused: " + strings.TrimSpace(answer[1:]))
	}
	return nil
}

func uuid4() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "go run send.go ACCOUNT EVENT.json [ID]; - reads the event from standard input")
		os.Exit(2)
	}
	id := uuid4()
	if len(os.Args) > 3 {
		id = os.Args[3]
	}
	read := func() ([]byte, error) { return os.ReadFile(os.Args[2]) }
	if os.Args[2] == "-" {
		read = func() ([]byte, error) { return io.ReadAll(os.Stdin) }
	}
	event, err := read()
	if err == nil {
		err = sendPostback(os.Args[1], event, id)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "not sent: %v. Send it again with the same id: go run send.go … %s\n", err, id)
		os.Exit(1)
	}
	fmt.Println(id)
}

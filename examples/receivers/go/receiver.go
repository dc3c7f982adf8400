// Receiver of postbacks with Go's standard library alone (Go 1.19 or newer).
//
//	WEBHOOK_SECRET=whsec_... go run .     receives on http://127.0.0.1:8080/ (PORT; 0 takes a free one)
//	go run . state                        prints the newest of each subscriber, message and pass
//
// What it stores stands in DATA_DIR (receiver-data). Before it stands your web server, which speaks TLS.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	bodyBytesMax = 2 * 1024 * 1024 // no postback has more than 2 MB
	tolerance    = 5 * time.Minute // between the time of a signature and now
	depthMax     = 16              // elements inside of each other; a postback has 3 today
)

// subjects has the tags that name what an event is about. Of two events about the same, the one with the higher
// sequence is newer.
var subjects = map[string][]string{
	"SUB":           {"MOBILE", "CAMPAIGNID"},
	"EMAIL_SUB":     {"EMAIL", "CAMPAIGNID"},
	"SMS_MT":        {"TRACKINGID"},
	"MMS_MT":        {"TRACKINGID", "MMSID"},
	"GENERATE_PASS": {"REFERENCEDBY", "REFERENCEVALUE"},
}

var (
	isTime     = regexp.MustCompile(`^[0-9]{1,12}$`)
	isID       = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)
	isSequence = regexp.MustCompile(`^[0-9]{1,15}$`)
)

// refusal is a request that gets another status than 200.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, format string, values ...any) error {
	return &refusal{status, fmt.Sprintf(format, values...)}
}

// postback is what is stored of a request.
type postback struct {
	ID       string `json:"id"`
	Sequence int64  `json:"sequence"`
	Body     []byte `json:"body"`
}

// state is the newest event of a subject.
type state struct {
	Subject  string `json:"subject"`
	Sequence int64  `json:"sequence"`
	Code     string `json:"code"`
	ID       string `json:"id"`
}

// -- the request -----------------------------------------------------------------------------------------------------

// only returns the value of a header that is there once, or nothing.
func only(header http.Header, name string) string {
	if values := header.Values(name); len(values) == 1 {
		return values[0]
	}
	return ""
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > bodyBytesMax {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is too long")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	var netError net.Error
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &netError) && netError.Timeout():
		return nil, refuse(http.StatusRequestTimeout, "the body did not come in time")
	case len(body) >= bodyBytesMax:
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is too long")
	default:
		return nil, refuse(http.StatusBadRequest, "the body ended early")
	}
}

// checkSignature returns the id of a request that is signed with the key, and recently; the body is as it arrived.
func checkSignature(key []byte, header http.Header, body []byte, now time.Time) (string, error) {
	id, timestamp, signatures := only(header, "webhook-id"), only(header, "webhook-timestamp"), only(header, "webhook-signature")
	if id == "" || timestamp == "" || signatures == "" {
		return "", refuse(401, "webhook-id, webhook-timestamp and webhook-signature must be there once each")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || !isTime.MatchString(timestamp) || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return "", refuse(401, "webhook-timestamp is not the time of the last 5 minutes")
	}
	if !isID.MatchString(id) {
		return "", refuse(400, "webhook-id is no id of a postback")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := mac.Sum(nil)
	// Several while the secret is being changed; one that fits is enough.
	for _, word := range strings.Split(signatures, " ") {
		version, text, _ := strings.Cut(word, ",")
		signature, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(expected, signature) {
			return id, nil
		}
	}
	return "", refuse(401, "no signature fits")
}

func readSequence(header http.Header) (int64, error) {
	text := only(header, "Postback-Sequence")
	if !isSequence.MatchString(text) {
		return 0, refuse(400, "Postback-Sequence must be there once, and be a number")
	}
	return strconv.ParseInt(text, 10, 64)
}

// element is an element of a document: its text, or what it holds by name.
type element struct {
	name     string
	text     strings.Builder
	children map[string][]any
}

func (e *element) value() any {
	if len(e.children) > 0 {
		return e.children
	}
	return e.text.String()
}

// parse returns a document's tags: the text of each, or the lists of what it holds by name.
//
// There is no DTD and no entity in a postback, so a DOCTYPE is refused before anything in it is read.
func parse(body []byte) (map[string]any, error) {
	decoder := xml.NewDecoder(bytes.NewReader(body)) // it reads UTF-8 alone, and fetches nothing
	elements := []*element{{children: map[string][]any{}}}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, refuse(400, "the body is no postback: %v", err)
		}
		last := elements[len(elements)-1]
		switch token := token.(type) {
		case xml.Directive:
			return nil, refuse(400, "the body is no postback: it has a DOCTYPE")
		case xml.StartElement:
			if len(elements) > depthMax {
				return nil, refuse(400, "the body is no postback: it is nested too deeply")
			}
			elements = append(elements, &element{name: token.Name.Local, children: map[string][]any{}})
		case xml.EndElement:
			elements = elements[:len(elements)-1]
			above := elements[len(elements)-1]
			above.children[last.name] = append(above.children[last.name], last.value())
		case xml.CharData:
			last.text.Write(token)
		}
	}
	document := elements[0]
	roots := document.children["POSTBACK"]
	if len(document.children) != 1 || len(roots) != 1 || strings.TrimSpace(document.text.String()) != "" {
		return nil, refuse(400, "the body is no postback: its root is not one POSTBACK")
	}
	children, _ := roots[0].(map[string][]any)
	tags := map[string]any{}
	for name, values := range children {
		if len(values) > 1 {
			return nil, refuse(400, "the body is no postback: a tag is there twice")
		}
		tags[name] = values[0]
	}
	_, hasOrigin := tags["ORIGIN"].(string)
	_, hasCode := tags["CODE"].(string)
	if !hasOrigin || !hasCode {
		return nil, refuse(400, "the body is no postback: it has no ORIGIN or no CODE")
	}
	return tags, nil // tags and codes that we do not know are stored as well: they are new ones
}

// -- the store -------------------------------------------------------------------------------------------------------

// A directory whose file names are unique stands for a table here: in your program it is a table of your database, with
// a unique column for webhook-id. Delete what is older than 30 days.
type store struct{ temporary, postbacks, done, states string }

func openStore() (*store, error) {
	directory := os.Getenv("DATA_DIR")
	if directory == "" {
		directory = "receiver-data"
	}
	at := func(name string) string { return filepath.Join(directory, name) }
	s := &store{at("temporary"), at("postbacks"), at("done"), at("states")}
	for _, name := range []string{s.temporary, s.postbacks, s.done, s.states} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// hash makes a file's name of an id or a subject, which may hold any character.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// write puts a value on the disk, in a temporary file.
func (s *store) write(value any) (string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(s.temporary, "")
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err = file.Write(text); err == nil {
		err = file.Sync()
	}
	return file.Name(), err
}

// clean removes the temporary files of a process that was killed.
func (s *store) clean() error {
	if err := os.RemoveAll(s.temporary); err != nil {
		return err
	}
	return os.Mkdir(s.temporary, 0o700)
}

// syncDirectory puts a directory's names on the disk.
func syncDirectory(name string) error {
	directory, err := os.Open(name)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}

// add stores a postback unless its id is known, and tells whether it was new. A link is made once, and to a file that is
// complete: of two at once the second finds all of the first.
func (s *store) add(p postback) (bool, error) {
	temporary, err := s.write(p)
	if temporary != "" {
		defer os.Remove(temporary)
	}
	if err != nil {
		return false, err
	}
	err = os.Link(temporary, filepath.Join(s.postbacks, hash(p.ID)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return err == nil, syncDirectory(s.postbacks)
}

// -- the work, after the answer --------------------------------------------------------------------------------------

// worker handles stored postbacks one by one.
type worker struct {
	store *store
	mutex sync.Mutex
}

// handle handles a stored postback, one at a time.
func (w *worker) handle(name string) {
	for {
		w.mutex.Lock()
		err := w.work(name)
		w.mutex.Unlock()
		if err == nil {
			return
		}
		log.Printf("not handled, again in a second: %v", err)
		time.Sleep(time.Second)
	}
}

// work is where your program begins: it keeps the newest of each subject, and prints the postback. If the process ends
// in the middle, the next one begins with this postback again.
func (w *worker) work(name string) error {
	var p postback
	if err := readJSON(filepath.Join(w.store.postbacks, name), &p); err != nil {
		return err
	}
	tags, err := parse(p.Body)
	if err != nil {
		return err
	}
	newest := true
	if subject := subjectOf(tags); subject != "" {
		newest, err = w.store.change(state{subject, p.Sequence, tags["CODE"].(string), p.ID})
		if err != nil {
			return err
		}
	}
	err = printJSON(map[string]any{"id": p.ID, "sequence": p.Sequence, "newest": newest, "tags": tags})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.store.done, name), nil, 0o600)
}

// change keeps a state unless it is older than the one that is known.
func (s *store) change(new state) (bool, error) {
	name := filepath.Join(s.states, hash(new.Subject))
	var known state
	err := readJSON(name, &known)
	if err == nil && new.Sequence < known.Sequence {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	temporary, err := s.write(new)
	if err != nil {
		return false, err
	}
	if err = os.Rename(temporary, name); err != nil {
		return false, err
	}
	return true, syncDirectory(s.states)
}

// left returns the names of what an earlier process has stored and not handled.
func (s *store) left() ([]string, error) {
	entries, err := os.ReadDir(s.postbacks)
	var names []string
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(s.done, entry.Name())); errors.Is(err, fs.ErrNotExist) {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// subjectOf returns what an event is about; nothing for a message from a person, which is about itself.
func subjectOf(tags map[string]any) string {
	origin := tags["ORIGIN"].(string)
	parts := []string{origin}
	for _, name := range subjects[origin] {
		if value, isText := tags[name].(string); isText {
			parts = append(parts, value)
		}
	}
	if len(parts) == 1 {
		return ""
	}
	if origin == "MMS_MT" {
		parts = parts[:2] // the message, or where no message is meant its content
	}
	return strings.Join(parts, "/")
}

func (s *store) printStates() error {
	entries, err := os.ReadDir(s.states)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		var known state
		if err = readJSON(filepath.Join(s.states, entry.Name()), &known); err != nil {
			return err
		}
		if err = printJSON(known); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(name string, value any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// -- the server ------------------------------------------------------------------------------------------------------

// receive checks and stores a request, and returns the name of what is new. The work comes after the answer.
func receive(key []byte, s *store, w http.ResponseWriter, r *http.Request) (string, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return "", refuse(http.StatusMethodNotAllowed, "postbacks are POSTed here")
	}
	body, err := readBody(w, r)
	if err != nil {
		return "", err
	}
	id, err := checkSignature(key, r.Header, body, time.Now())
	if err != nil {
		return "", err
	}
	sequence, err := readSequence(r.Header)
	if err != nil {
		return "", err
	}
	if _, err = parse(body); err != nil {
		return "", err
	}
	if only(r.Header, "Postback-Test") == "1" {
		return "", nil
	}
	isNew, err := s.add(postback{id, sequence, body})
	if err != nil || !isNew {
		return "", err
	}
	return hash(id), nil
}

// handler answers. The sender keeps the first 256 bytes of the reason where the status is not 200.
func handler(key []byte, s *store, w *worker) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		name, err := receive(key, s, response, request)
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			http.Error(response, refused.reason, refused.status)
		case err != nil:
			// Not stored, so not 200: it comes again in 5 minutes.
			log.Printf("not stored: %v", err)
			http.Error(response, "cannot store it now", http.StatusServiceUnavailable)
		default:
			io.WriteString(response, "OK")
		}
		if name != "" {
			go w.handle(name)
		}
	}
}

func readKey() []byte {
	secret := os.Getenv("WEBHOOK_SECRET")
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) == 0 || !strings.HasPrefix(secret, "whsec_") {
		log.Fatal("Set WEBHOOK_SECRET to the secret of your account: whsec_ and base64.")
	}
	return key
}

func serve(s *store) error {
	key := readKey()
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	if err = s.clean(); err != nil {
		return err
	}
	left, err := s.left()
	if err != nil {
		return err
	}
	w := &worker{store: s}
	server := http.Server{
		Handler:        handler(key, s, w),
		ReadTimeout:    10 * time.Second,
		IdleTimeout:    130 * time.Second, // postbacks does not use a connection that has rested for 118 s
		MaxHeaderBytes: 64 * 1024,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	fmt.Printf("listening on http://%s/\n", listener.Addr())
	for _, name := range left {
		go w.handle(name)
	}
	return server.Serve(listener)
}

func main() {
	log.SetFlags(0)
	s, err := openStore()
	if err == nil && len(os.Args) > 1 && os.Args[1] == "state" {
		err = s.printStates()
	} else if err == nil {
		err = serve(s)
	}
	if err != nil {
		log.Fatal(err)
	}
}

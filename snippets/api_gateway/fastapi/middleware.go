// Meter every request of a net/http application.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

var customers = map[string]string{"key-of-ada": "cus_ada"} // your key store

type event struct {
	EventID    string         `json:"event_id"`
	CustomerID string         `json:"customer_id"`
	EventName  string         `json:"event_name"`
	Timestamp  time.Time      `json:"timestamp"`
	Metadata   map[string]any `json:"metadata"`
}

// recorder delivers events in the background, in batches of up to 1,000.
type recorder struct {
	url, key   string
	client     http.Client
	waiting    chan event
	stop, done chan struct{}
}

func newRecorder(url, key string) *recorder {
	r := &recorder{
		url: strings.TrimRight(url, "/") + "/events/ingest", key: key,
		client:  http.Client{Timeout: 10 * time.Second},
		waiting: make(chan event, 100_000),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	go r.run()
	return r
}

// record takes an event, at once.
func (r *recorder) record(e event) {
	select {
	case r.waiting <- e:
	default:
		log.Printf("event %s dropped: %d events wait already", e.EventID, len(r.waiting))
	}
}

// shutdown delivers what is left, within the timeout. Call it when the server has shut down.
func (r *recorder) shutdown(timeout time.Duration) error {
	close(r.stop)
	select {
	case <-r.done:
		return nil
	case <-time.After(timeout):
		return errors.New("events lost: the metering API did not take them in time")
	}
}

func (r *recorder) run() {
	defer close(r.done)
	for {
		select {
		case first := <-r.waiting:
			batch := []event{first}
			for len(batch) < 1000 && len(r.waiting) > 0 {
				batch = append(batch, <-r.waiting)
			}
			r.deliver(batch)
		case <-r.stop:
			if len(r.waiting) == 0 {
				return
			}
		}
	}
}

// deliver sends a batch until each of its events is stored, or refused by itself.
func (r *recorder) deliver(batch []event) {
	for attempt := 0; ; attempt++ {
		status, err := r.post(batch)
		if err == nil {
			return
		}
		switch status {
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
			if len(batch) == 1 {
				log.Printf("event %s refused: %v", batch[0].EventID, err)
				return
			}
			// One bad event refuses its whole batch: find it.
			r.deliver(batch[:len(batch)/2])
			r.deliver(batch[len(batch)/2:])
			return
		}
		// The same events, with the same ids: what was stored already is not billed twice.
		log.Printf("%d events not delivered, trying again: %v", len(batch), err)
		time.Sleep(mathrand.N(min(500*time.Millisecond<<min(attempt, 10), 5*time.Second)))
	}
}

// post makes one try. Without an error, the batch is stored; without an answer, the status is 0.
func (r *recorder) post(batch []event) (status int, err error) {
	body, err := json.Marshal(map[string]any{"events": batch})
	if err != nil { // a NaN in the metadata, for example: as if the API had refused it
		return http.StatusUnprocessableEntity, err
	}
	request, err := http.NewRequest(http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+r.key)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"ingested_count"`)) {
		return response.StatusCode, fmt.Errorf("%s %s", response.Status, bytes.Join(bytes.Fields(answer), []byte(" ")))
	}
	return response.StatusCode, nil
}

type customerKey struct{}

// usage records one event for each request of a customer, when its response is complete or broken off.
func usage(next http.Handler, record func(event)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		customer := new(string) // authenticated fills it in
		r = r.WithContext(context.WithValue(r.Context(), customerKey{}, customer))
		received := &countingBody{ReadCloser: r.Body}
		r.Body = received
		sent := &countingWriter{ResponseWriter: w}
		defer func() {
			if *customer == "" {
				return
			}
			if r.Method == http.MethodHead {
				sent.bytes = 0 // net/http leaves the body out
			}
			record(event{
				EventID:    rand.Text(),
				CustomerID: *customer,
				EventName:  "api.request",
				Timestamp:  time.Now().UTC(),
				Metadata: map[string]any{
					"endpoint":       endpoint(r.Pattern),
					"method":         r.Method,
					"status_code":    cmp.Or(sent.status, http.StatusInternalServerError),
					"duration_ms":    float64(time.Since(start).Microseconds()) / 1000,
					"request_bytes":  max(r.ContentLength, received.bytes), // -1 if the request does not say
					"response_bytes": sent.bytes,
				},
			})
		}()
		next.ServeHTTP(sent, r)
		sent.commit(http.StatusOK) // what net/http sends if nothing was written; after a panic, this line is not reached
	})
}

// endpoint is the path of a pattern "[METHOD ][HOST]/path", which the mux leaves in the request.
func endpoint(pattern string) string {
	if start := strings.Index(pattern, "/"); start >= 0 {
		return pattern[start:]
	}
	return "(unmatched)"
}

type countingBody struct {
	io.ReadCloser
	bytes int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += int64(n)
	return n, err
}

type countingWriter struct {
	http.ResponseWriter
	status, bytes int
}

func (w *countingWriter) commit(status int) {
	if w.status == 0 && status >= 200 { // 1xx goes before the status
		w.status = status
	}
}

func (w *countingWriter) WriteHeader(status int) {
	w.commit(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.commit(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach Flush and the like.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// authenticated takes the customer from the verified key, never from what the request claims.
func authenticated(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		customer, known := customers[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if !known {
			answer(w, http.StatusUnauthorized, map[string]string{"detail": "unknown API key"})
			return
		}
		if metered, ok := r.Context().Value(customerKey{}).(*string); ok {
			*metered = customer
		}
		next(w, r)
	}
}

func answer(w http.ResponseWriter, status int, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	text, _ := json.Marshal(body) // strings always encode
	w.Write(text)
}

func main() {
	var missing []string
	for _, name := range []string{"METERING_API_URL", "METERING_API_KEY"} {
		if os.Getenv(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		log.Fatalf("%s not set: `meterprint up` starts a local metering API and prints both", strings.Join(missing, " and "))
	}
	metering := newRecorder(os.Getenv("METERING_API_URL"), os.Getenv("METERING_API_KEY"))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/orders/{order_id}", authenticated(func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]string{"order_id": r.PathValue("order_id")})
	}))
	mux.HandleFunc("POST /v1/orders", authenticated(func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusCreated, map[string]string{"order_id": "8"})
	}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: usage(mux, metering.record), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)

	// Three requests of a customer, and one of a stranger.
	api := "http://" + listener.Addr().String()
	call(api, "GET", "/v1/orders/7", "key-of-ada", "")
	call(api, "POST", "/v1/orders", "key-of-ada", `{"item":"book"}`)
	call(api, "GET", "/v1/orders/9", "", "")
	call(api, "GET", "/health", "key-of-ada", "")

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(server.Shutdown(ctx), metering.shutdown(10*time.Second)); err != nil {
		log.Fatal(err)
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

func call(api, method, path, key, body string) {
	request, err := http.NewRequest(method, api+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println(method, path, response.StatusCode)
}

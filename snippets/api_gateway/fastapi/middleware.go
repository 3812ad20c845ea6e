// Meter every request of a net/http application.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
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
	url, key string
	client   http.Client
	waiting  chan event
	done     chan struct{}
}

func newRecorder(url, key string) *recorder {
	r := &recorder{
		url: url, key: key,
		client:  http.Client{Timeout: 10 * time.Second},
		waiting: make(chan event, 100_000),
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

// close delivers what is left, and says whether all of it was.
func (r *recorder) close(timeout time.Duration) bool {
	close(r.waiting)
	select {
	case <-r.done:
		return true
	case <-time.After(timeout):
		return false
	}
}

func (r *recorder) run() {
	defer close(r.done)
	for first := range r.waiting {
		batch := []event{first}
		for len(batch) < 1000 && len(r.waiting) > 0 {
			batch = append(batch, <-r.waiting)
		}
		r.settle(batch)
	}
}

// settle sends a batch until each of its events is stored, or refused by itself.
func (r *recorder) settle(batch []event) {
	for attempt := 0; ; attempt++ {
		status, answer, err := r.post(batch)
		switch {
		case err == nil && status == http.StatusOK:
			return
		case err == nil && refused[status] && len(batch) == 1:
			log.Printf("event %s refused: %s", batch[0].EventID, answer)
			return
		case err == nil && refused[status]: // one bad event refuses its whole batch: find it
			r.settle(batch[:len(batch)/2])
			r.settle(batch[len(batch)/2:])
			return
		}
		// The same events, with the same ids: what was stored already is not billed twice.
		log.Printf("%d events not delivered, trying again: %d %v", len(batch), status, err)
		bound := min(500*time.Millisecond<<min(attempt, 10), 30*time.Second)
		time.Sleep(time.Duration(mathrand.Int64N(int64(bound))))
	}
}

var refused = map[int]bool{
	http.StatusBadRequest:            true,
	http.StatusRequestEntityTooLarge: true,
	http.StatusUnprocessableEntity:   true,
}

func (r *recorder) post(batch []event) (status int, answer []byte, err error) {
	body, err := json.Marshal(map[string]any{"events": batch})
	if err != nil {
		return 0, nil, err
	}
	request, err := http.NewRequest(http.MethodPost, r.url+"/events/ingest", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+r.key)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

type customerKey struct{}

// usage records one event for each request of a customer, when its response is complete.
func usage(next http.Handler, record func(event)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		customer := new(string) // authentication fills it in
		r = r.WithContext(context.WithValue(r.Context(), customerKey{}, customer))
		counted := &countingWriter{ResponseWriter: w}
		defer func() {
			failure := recover()
			if *customer != "" {
				_, endpoint, _ := strings.Cut(r.Pattern, " ")
				record(event{rand.Text(), *customer, "api.request", time.Now().UTC(), map[string]any{
					"endpoint":       endpoint,
					"method":         r.Method,
					"status_code":    counted.statusCode(failure != nil),
					"duration_ms":    float64(time.Since(start).Microseconds()) / 1000,
					"request_bytes":  max(r.ContentLength, 0),
					"response_bytes": counted.bytes,
				}})
			}
			if failure != nil {
				panic(failure)
			}
		}()
		next.ServeHTTP(counted, r)
	})
}

type countingWriter struct {
	http.ResponseWriter
	status, bytes int
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}

func (w *countingWriter) statusCode(failed bool) int {
	switch {
	case w.status != 0:
		return w.status
	case failed:
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// Unwrap lets http.ResponseController reach Flush and the like.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// authenticated takes the customer from the verified key, never from what the request claims.
func authenticated(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		customer, known := customers[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if !known {
			http.Error(w, "unknown API key", http.StatusUnauthorized)
			return
		}
		*r.Context().Value(customerKey{}).(*string) = customer
		next(w, r)
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func main() {
	url, key := os.Getenv("METERING_API_URL"), os.Getenv("METERING_API_KEY")
	if url == "" || key == "" {
		log.Fatal("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both")
	}
	metering := newRecorder(url, key)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/orders/{order_id}", authenticated(func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, fmt.Sprintf(`{"order_id":%q}`, r.PathValue("order_id")))
	}))
	mux.HandleFunc("POST /v1/orders", authenticated(func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusCreated, `{"order_id":"8"}`)
	}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, `{"status":"ok"}`)
	})

	// Three requests of a customer, and one of a stranger.
	server := httptest.NewServer(usage(mux, metering.record))
	send(server.URL, "GET", "/v1/orders/7", "key-of-ada", "")
	send(server.URL, "POST", "/v1/orders", "key-of-ada", `{"item":"book"}`)
	send(server.URL, "GET", "/v1/orders/9", "", "")
	send(server.URL, "GET", "/health", "key-of-ada", "")
	server.Close()
	if !metering.close(10 * time.Second) {
		log.Fatal("events lost: the metering API does not answer")
	}
}

func send(server, method, path, key, body string) {
	request, err := http.NewRequest(method, server+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println(method, path, response.StatusCode)
}

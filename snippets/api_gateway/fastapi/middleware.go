// Meter every request of a net/http application.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"meterprint.example/snippets/metering"
)

var customers = map[string]string{"key-of-ada": "cus_ada"} // your key store

type customerKey struct{}

// usage records one event for each request of a customer, when its response is complete or broken off.
func usage(next http.Handler, record func(metering.Event)) http.Handler {
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
			record(metering.Event{
				CustomerID: *customer,
				Name:       "api.request",
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
	recorder, err := metering.FromEnv()
	if err != nil {
		log.Fatal(err)
	}

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
	server := &http.Server{Handler: usage(mux, recorder.Record), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)

	// Three requests of a customer, and one of a stranger.
	api := "http://" + listener.Addr().String()
	call(api, "GET", "/v1/orders/7", "key-of-ada", "")
	call(api, "POST", "/v1/orders", "key-of-ada", `{"item":"book"}`)
	call(api, "GET", "/v1/orders/9", "", "")
	call(api, "GET", "/health", "key-of-ada", "")

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(server.Shutdown(ctx), recorder.Close(10*time.Second)); err != nil {
		log.Print(err)
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

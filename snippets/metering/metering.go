// Package metering delivers usage events to a metering API in the background, so that what measures never waits for it.
package metering

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
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch   = 1_000   // events in a request: the metering API takes no more
	maxWaiting = 100_000 // events in memory
	maxPause   = 5 * time.Second
	maxAsked   = 10 * time.Minute // a Retry-After beyond this is a mistake
)

// Event says what a customer used. Record fills in an ID and a Timestamp that are missing.
type Event struct {
	ID         string         `json:"event_id"` // each is billed once
	CustomerID string         `json:"customer_id"`
	Name       string         `json:"event_name"`
	Timestamp  time.Time      `json:"timestamp"`
	Metadata   map[string]any `json:"metadata,omitempty"`
}

// ID is the id of what has a name already, such as an answer: ID("openai", answer.ID). It is the same on every try.
// Where a part of the name is missing it is empty, and Record makes one.
func ID(parts ...string) string {
	for _, part := range parts {
		if part == "" {
			return ""
		}
	}
	return strings.Join(parts, ":")
}

// Recorder delivers events in batches, one request at a time. Close it at the end.
type Recorder struct {
	url, key string
	client   http.Client
	waiting  chan *Event
	giveUp   context.CancelFunc
	done     chan struct{}
	lost     atomic.Int64

	mu     sync.RWMutex // Close closes waiting while nobody sends
	closed bool
}

// FromEnv makes a Recorder from METERING_API_URL and METERING_API_KEY.
func FromEnv() (*Recorder, error) {
	var missing []string
	for _, name := range []string{"METERING_API_URL", "METERING_API_KEY"} {
		if os.Getenv(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		names := strings.Join(missing, " and ")
		return nil, fmt.Errorf("%s not set: `meterprint up` starts a local metering API and prints both", names)
	}
	return New(os.Getenv("METERING_API_URL"), os.Getenv("METERING_API_KEY")), nil
}

// New makes a Recorder for the metering API at a URL.
func New(url, key string) *Recorder {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Recorder{
		url:     strings.TrimRight(url, "/") + "/events/ingest",
		key:     key,
		client:  http.Client{Timeout: 10 * time.Second},
		waiting: make(chan *Event, maxWaiting),
		giveUp:  cancel,
		done:    make(chan struct{}),
	}
	go r.run(ctx)
	return r
}

// Record takes an event, at once. Any goroutine may call it.
func (r *Recorder) Record(e Event) {
	e.ID = cmp.Or(e.ID, rand.Text())
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now().UTC()
	}
	e.Metadata = maps.Clone(e.Metadata) // the caller may go on with its own
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		r.lose("came after Close", &e)
		return
	}
	select {
	case r.waiting <- &e:
	default:
		r.lose(fmt.Sprintf("dropped: %d wait already", maxWaiting), &e)
	}
}

// Close delivers what is left, within the timeout. The error says how many events were not metered since New; the log
// has each of them.
func (r *Recorder) Close(timeout time.Duration) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.waiting)
	}
	r.mu.Unlock()
	timer := time.AfterFunc(timeout, r.giveUp)
	defer timer.Stop()
	<-r.done
	if lost := r.lost.Load(); lost > 0 {
		return fmt.Errorf("events not metered: %d, see the log", lost)
	}
	return nil
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	for first := range r.waiting {
		batch := []*Event{first}
		for len(batch) < maxBatch && len(r.waiting) > 0 {
			batch = append(batch, <-r.waiting)
		}
		r.deliver(ctx, batch)
	}
}

// lose reports events that are not metered, whole, so that they can be sent by hand.
func (r *Recorder) lose(why string, batch ...*Event) {
	r.lost.Add(int64(len(batch)))
	for _, e := range batch {
		text, err := json.Marshal(e)
		if err != nil {
			text = fmt.Appendf(nil, "%+v", *e)
		}
		log.Printf("not metered: event %s %s: %s", e.ID, why, text)
	}
}

var errRefused = errors.New("refused") // the events are at fault, not the network or a setting

// deliver sends a batch until each of its events is stored, or refused by itself.
func (r *Recorder) deliver(ctx context.Context, batch []*Event) {
	for attempt := 0; ; attempt++ {
		asked, err := r.post(ctx, batch)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			r.lose("not delivered in time", batch...)
			return
		case errors.Is(err, errRefused) && len(batch) == 1:
			r.lose(err.Error(), batch...)
			return
		case errors.Is(err, errRefused): // one bad event refuses its whole batch: find it
			r.deliver(ctx, batch[:len(batch)/2])
			r.deliver(ctx, batch[len(batch)/2:])
			return
		}
		// The same events, with the same ids: what was stored already is not billed twice.
		log.Printf("%d events not delivered, trying again: %v", len(batch), err)
		select {
		case <-time.After(asked + mathrand.N(min(500*time.Millisecond<<min(attempt, 10), maxPause))):
		case <-ctx.Done():
		}
	}
}

// post makes one try. Without an error, the batch is stored; with one, asked is the pause that the metering API wants.
func (r *Recorder) post(ctx context.Context, batch []*Event) (asked time.Duration, err error) {
	body, err := json.Marshal(map[string]any{"events": batch})
	if err != nil { // a NaN in the metadata, for example: as if the API had refused it
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
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
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return retryAfter(response.Header), meaning(response, text)
}

// meaning tells a batch that is stored from one that is refused, and both from a proxy's answer, which is neither.
func meaning(response *http.Response, text []byte) error {
	var answer struct {
		IngestedCount *int   `json:"ingested_count"`
		Code          string `json:"code"`
	}
	_ = json.Unmarshal(text, &answer) // what is no JSON leaves it empty
	status := response.StatusCode
	if status == http.StatusOK && answer.IngestedCount != nil {
		return nil
	}
	err := fmt.Errorf("%s %.500s", response.Status, bytes.Join(bytes.Fields(text), []byte(" ")))
	switch {
	case status == http.StatusRequestEntityTooLarge,
		status == http.StatusBadRequest && answer.Code != "",
		status == http.StatusUnprocessableEntity && answer.Code != "":
		return fmt.Errorf("%w: %w", errRefused, err)
	default:
		return err
	}
}

// retryAfter reads the header of that name, which has seconds or a date.
func retryAfter(header http.Header) time.Duration {
	asked := time.Duration(0)
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil {
		asked = time.Duration(min(seconds, 1_000)) * time.Second
	} else if date, err := http.ParseTime(header.Get("Retry-After")); err == nil {
		asked = time.Until(date)
	}
	return min(max(asked, 0), maxAsked)
}

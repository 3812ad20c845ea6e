package metering

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// api stands in for the metering API: it keeps what it takes, and when it was asked.
type api struct {
	t      *testing.T
	answer func(ids []string) (status int, body string, header http.Header)
	asked  []time.Duration
	stored []Event
	start  time.Time
}

const stored = `{"ingested_count": 1}`

func (a *api) RoundTrip(request *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, time.Since(a.start))
	var body struct{ Events []Event }
	if err := json.NewDecoder(request.Body).Decode(&body); err != nil {
		a.t.Fatal(err)
	}
	var ids []string
	for _, e := range body.Events {
		ids = append(ids, e.ID)
	}
	status, text, header := a.answer(ids)
	if status == 0 { // hangs
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	if status == http.StatusOK {
		a.stored = append(a.stored, body.Events...)
	}
	return &http.Response{
		Status:     http.StatusText(status),
		StatusCode: status,
		Header:     header,
		Body:       io.NopCloser(strings.NewReader(text)),
	}, nil
}

// with runs a test in a bubble, where time passes only while everybody waits. It gives a Recorder and what is logged.
func with(
	t *testing.T,
	answer func(ids []string) (int, string, http.Header),
	test func(t *testing.T, r *Recorder, a *api, logged *bytes.Buffer),
) {
	logged := new(bytes.Buffer)
	log.SetOutput(logged)
	t.Cleanup(func() { log.SetOutput(io.Discard) })
	synctest.Test(t, func(t *testing.T) {
		a := &api{t: t, answer: answer, start: time.Now()}
		r := New("http://metering.test/", "key")
		r.client.Transport = a
		test(t, r, a, logged)
	})
}

func ok([]string) (int, string, http.Header) { return http.StatusOK, stored, nil }

func TestRecordStampsIdAndTimeOnceAndCopiesTheMetadata(t *testing.T) {
	var failed []string
	first := func(ids []string) (int, string, http.Header) {
		if failed == nil {
			failed = ids
			return http.StatusServiceUnavailable, "", nil
		}
		return ok(ids)
	}
	with(t, first, func(t *testing.T, r *Recorder, a *api, _ *bytes.Buffer) {
		metadata := map[string]any{"endpoint": "/v1/orders"}
		r.Record(Event{CustomerID: "cus_ada", Name: "api.request", Metadata: metadata})
		metadata["endpoint"] = "changed"
		if err := r.Close(time.Minute); err != nil {
			t.Fatal(err)
		}
		got := a.stored[0]
		if got.ID == "" || got.ID != failed[0] || !got.Timestamp.Equal(a.start) || got.Metadata["endpoint"] != "/v1/orders" {
			t.Errorf("stored %+v after %s", got, failed)
		}
	})
}

func TestWhatTheCallerStampedStays(t *testing.T) {
	with(t, ok, func(t *testing.T, r *Recorder, a *api, _ *bytes.Buffer) {
		moment := time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC)
		r.Record(Event{ID: ID("openai", "chatcmpl-1"), Timestamp: moment})
		r.Record(Event{ID: ID("openai", "")})
		if err := r.Close(time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := a.stored[0]; got.ID != "openai:chatcmpl-1" || !got.Timestamp.Equal(moment) {
			t.Errorf("stored %+v", got)
		}
		if got := a.stored[1].ID; got == "" || strings.Contains(got, "openai") {
			t.Errorf("an answer without an id gave the event id %q", got)
		}
	})
}

func TestItComesBackNoSoonerThanItWasAsked(t *testing.T) {
	for _, asked := range []string{"60", "Sat, 01 Jan 2000 00:01:00 GMT"} { // a bubble begins on 2000-01-01
		busy := true
		answer := func(ids []string) (int, string, http.Header) {
			if busy {
				busy = false
				return http.StatusTooManyRequests, "", http.Header{"Retry-After": {asked}}
			}
			return ok(ids)
		}
		with(t, answer, func(t *testing.T, r *Recorder, a *api, _ *bytes.Buffer) {
			r.Record(Event{})
			if err := r.Close(2 * time.Minute); err != nil {
				t.Fatal(err)
			}
			if pause := a.asked[1] - a.asked[0]; pause < time.Minute || pause > time.Minute+time.Second {
				t.Errorf("Retry-After: %s: came back after %s", asked, pause)
			}
		})
	}
}

func TestOneBadEventTakesNoOtherWithIt(t *testing.T) {
	answer := func(ids []string) (int, string, http.Header) {
		if slices.Contains(ids, "bad") {
			return http.StatusBadRequest, `{"code": "INVALID_METADATA"}`, nil
		}
		return ok(ids)
	}
	with(t, answer, func(t *testing.T, r *Recorder, a *api, logged *bytes.Buffer) {
		for _, id := range []string{"a", "b", "bad", "c", "d"} {
			r.Record(Event{ID: id})
		}
		r.Record(Event{ID: "no number", Metadata: map[string]any{"tokens": math.NaN()}})
		if err := r.Close(time.Minute); err == nil || !strings.Contains(err.Error(), "2") {
			t.Errorf("Close said %v of 2 events that were refused", err)
		}
		if len(a.stored) != 4 {
			t.Errorf("stored %+v", a.stored)
		}
		for _, id := range []string{"bad", "no number"} {
			if !strings.Contains(logged.String(), "not metered: event "+id+" refused") {
				t.Errorf("no word of %q in %s", id, logged)
			}
		}
	})
}

func TestAProxysAnswersCostNoEvent(t *testing.T) {
	answers := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusOK}
	bodies := []string{"<h1>Bad Request</h1>", "", "<h1>Log in</h1>"}
	answer := func(ids []string) (int, string, http.Header) {
		if len(answers) == 0 {
			return ok(ids)
		}
		status, body := answers[0], bodies[0]
		answers, bodies = answers[1:], bodies[1:]
		return status, body, nil
	}
	with(t, answer, func(t *testing.T, r *Recorder, a *api, _ *bytes.Buffer) {
		r.Record(Event{ID: "a"})
		if err := r.Close(time.Minute); err != nil || len(a.asked) != 4 {
			t.Errorf("%v after %d tries", err, len(a.asked))
		}
	})
}

func TestCloseEndsInTimeAndReportsEachEventThatIsLost(t *testing.T) {
	hang := func([]string) (int, string, http.Header) { return 0, "", nil }
	with(t, hang, func(t *testing.T, r *Recorder, a *api, logged *bytes.Buffer) {
		r.Record(Event{ID: "on its way"})
		synctest.Wait()
		r.Record(Event{ID: "waiting", CustomerID: "cus_ada"})
		err := r.Close(3 * time.Second)
		if err == nil || !strings.Contains(err.Error(), "2") || time.Since(a.start) != 3*time.Second {
			t.Errorf("Close said %v after %s", err, time.Since(a.start))
		}
		r.Record(Event{ID: "late"})
		if err := r.Close(0); err == nil || !strings.Contains(err.Error(), "3") {
			t.Errorf("the second Close said %v", err)
		}
		for _, line := range []string{
			"event on its way not delivered in time",
			`"event_id":"waiting","customer_id":"cus_ada"`,
			"event late came after Close",
		} {
			if !strings.Contains(logged.String(), line) {
				t.Errorf("no %s in %s", line, logged)
			}
		}
	})
}

func TestRecordNeverWaits(t *testing.T) {
	hang := func([]string) (int, string, http.Header) { return 0, "", nil }
	with(t, hang, func(t *testing.T, r *Recorder, a *api, logged *bytes.Buffer) {
		r.Record(Event{})
		synctest.Wait()
		for range maxWaiting {
			r.Record(Event{})
		}
		r.Record(Event{ID: "one too many"})
		if time.Since(a.start) != 0 || strings.Count(logged.String(), "\n") != 1 {
			t.Errorf("Record took %s and said %s", time.Since(a.start), logged)
		}
		if !strings.Contains(logged.String(), "event one too many dropped") {
			t.Error(logged)
		}
		log.SetOutput(io.Discard)
		r.Close(0)
	})
}

func TestFromEnvNamesWhatIsMissing(t *testing.T) {
	t.Setenv("METERING_API_URL", "http://metering.test")
	t.Setenv("METERING_API_KEY", "")
	_, err := FromEnv()
	if err == nil || !strings.HasPrefix(err.Error(), "METERING_API_KEY not set: `meterprint up`") {
		t.Error(err)
	}
}

// Meter one API request.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

type event struct {
	EventID    string         `json:"event_id"`
	CustomerID string         `json:"customer_id"`
	EventName  string         `json:"event_name"`
	Timestamp  time.Time      `json:"timestamp"`
	Metadata   map[string]any `json:"metadata"`
}

func main() {
	log.SetFlags(0)
	var missing []string
	for _, name := range []string{"METERING_API_URL", "METERING_API_KEY"} {
		if os.Getenv(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		log.Fatalf("%s not set: `meterprint up` starts a local metering API and prints both", strings.Join(missing, " and "))
	}
	count, err := ingest(event{
		EventID:    rand.Text(), // made once, the same on every try: each id is billed once
		CustomerID: "cus_ada",
		EventName:  "api.request",
		Timestamp:  time.Now().UTC(),
		Metadata: map[string]any{
			"endpoint":       "/v1/orders/{order_id}",
			"method":         "GET",
			"status_code":    200,
			"duration_ms":    12.5,
			"request_bytes":  0,
			"response_bytes": 2048,
		},
	})
	if err != nil {
		log.Fatal("not metered: ", err)
	}
	fmt.Println(count, "event ingested")
}

// ingest sends one event, in up to four tries.
func ingest(e event) (int, error) {
	body, err := json.Marshal(map[string]any{"events": []event{e}})
	if err != nil {
		return 0, err
	}
	for attempt := 0; ; attempt++ {
		response, answer, err := post(body)
		if err == nil {
			var result struct {
				IngestedCount *int `json:"ingested_count"`
			}
			if response.StatusCode == http.StatusOK && json.Unmarshal(answer, &result) == nil && result.IngestedCount != nil {
				return *result.IngestedCount, nil
			}
			err = fmt.Errorf("%s %s", response.Status, bytes.Join(bytes.Fields(answer), []byte(" ")))
		}
		delay, again := wait(attempt, response)
		if attempt == 3 || !again {
			return 0, err
		}
		time.Sleep(delay)
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

// post makes one try. Without a whole answer, the response is nil.
func post(body []byte) (*http.Response, []byte, error) {
	url := strings.TrimRight(os.Getenv("METERING_API_URL"), "/") + "/events/ingest"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("METERING_API_KEY"))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	return response, answer, nil
}

// wait says how long to wait before the next try, and whether one makes sense.
func wait(attempt int, response *http.Response) (delay time.Duration, again bool) {
	delay = mathrand.N(500 * time.Millisecond << attempt)
	if response == nil {
		return delay, true
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		delay = time.Duration(min(seconds, 30)) * time.Second
	}
	switch status := response.StatusCode; status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return delay, true
	default:
		return delay, status >= 500
	}
}

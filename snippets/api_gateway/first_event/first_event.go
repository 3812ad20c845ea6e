// Meter one API request.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
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
	count, err := meter(event{
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
		fmt.Fprintln(os.Stderr, "not metered:", err)
		os.Exit(1)
	}
	fmt.Println(count, "event ingested")
}

// meter sends one event, with up to four tries.
func meter(e event) (ingested int, err error) {
	url, key := os.Getenv("METERING_API_URL"), os.Getenv("METERING_API_KEY")
	if url == "" || key == "" {
		return 0, errors.New("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both")
	}
	body, err := json.Marshal(map[string]any{"events": []event{e}})
	if err != nil {
		return 0, err
	}
	for attempt := 0; ; attempt++ {
		ingested, again, err := post(url, key, body)
		if err == nil || !again || attempt == 3 {
			return ingested, err
		}
		time.Sleep(time.Duration(mathrand.Int64N(int64(500*time.Millisecond) << attempt)))
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

// post makes one try, and says whether another makes sense.
func post(url, key string, body []byte) (ingested int, again bool, err error) {
	request, err := http.NewRequest(http.MethodPost, url+"/events/ingest", bytes.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, true, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, true, err
	}
	if response.StatusCode != http.StatusOK {
		again = response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500
		return 0, again, fmt.Errorf("%s: %s", response.Status, answer)
	}
	var result struct {
		IngestedCount int `json:"ingested_count"`
	}
	err = json.Unmarshal(answer, &result)
	return result.IngestedCount, false, err
}

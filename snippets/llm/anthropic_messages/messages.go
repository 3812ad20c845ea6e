// Meter a conversation with Anthropic: what is written to the prompt cache, and what is read from it.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"meterprint.example/snippets/metering"
)

// Long enough for every model's cache: most take prompts from 1,024 tokens, some from 4,096.
var guide = []map[string]any{{
	"type":          "text",
	"text":          strings.Repeat("Answer in one short sentence that a child understands. ", 500),
	"cache_control": map[string]string{"type": "ephemeral"},
}}

type turn struct {
	Role    string `json:"role"`
	Content any    `json:"content"`
}

type message struct {
	ID, Model string
	Content   json.RawMessage // goes back as it came with the next question
	Usage     *usage
}

type usage struct {
	Input         int `json:"input_tokens"`
	Cached        int `json:"cache_read_input_tokens"`
	Written       int `json:"cache_creation_input_tokens"`
	Output        int `json:"output_tokens"`
	OutputDetails struct {
		Thinking int `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

func main() {
	log.SetFlags(0)
	recorder, err := metering.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	err = converse(recorder, "Why is the sky blue?", "Why is the sunset red?")
	if err := errors.Join(err, recorder.Close(10*time.Second)); err != nil {
		log.Fatal(err)
	}
}

// converse asks one question after the other. Each answer is metered at once, whatever becomes of the next call.
func converse(recorder *metering.Recorder, questions ...string) error {
	var turns []turn
	for _, question := range questions {
		turns = append(turns, turn{"user", question})
		answer, err := ask(turns)
		if err != nil {
			return err
		}
		recorder.Record(metering.Event{
			ID:         metering.ID("anthropic", answer.ID),
			CustomerID: "cus_ada",
			Name:       "llm.usage",
			Metadata:   metadata(answer),
		})
		turns = append(turns, turn{"assistant", answer.Content})
		var blocks []struct{ Text string } // of another type than text: empty
		if err := json.Unmarshal(answer.Content, &blocks); err != nil {
			return err
		}
		for _, block := range blocks {
			fmt.Print(block.Text)
		}
		fmt.Println()
	}
	return nil
}

// metadata has each token once: Anthropic's input leaves out what its cache read and wrote, its output has the thinking.
func metadata(answer *message) map[string]any {
	used := cmp.Or(answer.Usage, &usage{})
	thinking := used.OutputDetails.Thinking
	return map[string]any{
		"provider":            "anthropic",
		"model":               answer.Model,
		"operation":           "chat",
		"input_tokens":        used.Input,
		"cached_input_tokens": used.Cached,
		"cache_write_tokens":  used.Written,
		"output_tokens":       used.Output - thinking,
		"reasoning_tokens":    thinking,
		"total_tokens":        used.Input + used.Cached + used.Written + used.Output,
		"estimated":           answer.Usage == nil,
	}
}

var client = &http.Client{Timeout: 2 * time.Minute}

// ask makes one call.
func ask(turns []turn) (*message, error) {
	key := os.Getenv("ANTHROPIC_API_KEY")
	if key == "" {
		return nil, errors.New("ANTHROPIC_API_KEY not set: make a key at https://console.anthropic.com/settings/keys")
	}
	body, err := json.Marshal(map[string]any{
		"model": "claude-sonnet-5-5", "max_tokens": 200, "system": guide, "messages": turns,
	})
	if err != nil {
		return nil, err
	}
	url := strings.TrimRight(cmp.Or(os.Getenv("ANTHROPIC_BASE_URL"), "https://api.anthropic.com"), "/") + "/v1/messages"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Api-Key", key)
	request.Header.Set("Anthropic-Version", "2023-06-01")
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("Anthropic: %s %s", response.Status, bytes.Join(bytes.Fields(text), []byte(" ")))
	}
	answer := new(message)
	return answer, json.Unmarshal(text, answer)
}

// Meter a chat completion of OpenAI.
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

type completion struct {
	ID, Model string
	Choices   []struct{ Message struct{ Content string } }
	Usage     *usage
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	PromptDetails    struct {
		Cached  int `json:"cached_tokens"`
		Written int `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

func main() {
	log.SetFlags(0)
	recorder, err := metering.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	answer, err := ask("Why is the sky blue?")
	if err != nil {
		log.Fatal(err) // a call that failed is not billed
	}
	recorder.Record(metering.Event{
		ID:         metering.ID("openai", answer.ID),
		CustomerID: "cus_ada",
		Name:       "llm.usage",
		Metadata:   metadata(answer),
	})
	for _, choice := range answer.Choices {
		fmt.Println(choice.Message.Content)
	}
	if err := recorder.Close(10 * time.Second); err != nil {
		log.Fatal(err)
	}
}

// metadata has each token once: OpenAI's prompt includes what its cache read and wrote, its completion the reasoning.
func metadata(answer *completion) map[string]any {
	used := cmp.Or(answer.Usage, &usage{})
	cached, written, reasoning := used.PromptDetails.Cached, used.PromptDetails.Written, used.CompletionDetails.Reasoning
	return map[string]any{
		"provider":            "openai",
		"model":               answer.Model,
		"operation":           "chat",
		"input_tokens":        used.PromptTokens - cached - written,
		"cached_input_tokens": cached,
		"cache_write_tokens":  written,
		"output_tokens":       used.CompletionTokens - reasoning,
		"reasoning_tokens":    reasoning,
		"total_tokens":        used.PromptTokens + used.CompletionTokens,
		"estimated":           answer.Usage == nil,
		"feature":             "support_chat",
	}
}

var client = &http.Client{Timeout: 2 * time.Minute}

// ask makes one call.
func ask(question string) (*completion, error) {
	key := os.Getenv("OPENAI_API_KEY")
	if key == "" {
		return nil, errors.New("OPENAI_API_KEY not set: make a key at https://platform.openai.com/api-keys")
	}
	body, err := json.Marshal(map[string]any{
		"model":    "gpt-5.4-mini",
		"messages": []map[string]string{{"role": "user", "content": question}},
	})
	if err != nil {
		return nil, err
	}
	url := strings.TrimRight(cmp.Or(os.Getenv("OPENAI_BASE_URL"), "https://api.openai.com/v1"), "/") + "/chat/completions"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
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
		return nil, fmt.Errorf("OpenAI: %s %s", response.Status, bytes.Join(bytes.Fields(text), []byte(" ")))
	}
	answer := new(completion)
	return answer, json.Unmarshal(text, answer)
}

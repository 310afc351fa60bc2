// The generated Go client, used as an application uses it.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"strings"

	"upload-broker/clients/generated/broker"
)

func check(holds bool, seen ...any) {
	if !holds {
		fmt.Println(seen...)
		os.Exit(1)
	}
}

func done[T any](value T, err error) T {
	check(err == nil, err)
	return value
}

func main() {
	content := make([]byte, 300_000)
	ctx := context.Background()
	authorize := func(_ context.Context, request *http.Request) error {
		request.Header.Set("authorization", "Bearer "+os.Getenv("TOKEN"))
		return nil
	}
	client := done(broker.NewClientWithResponses(os.Getenv("BROKER"), broker.WithRequestEditorFn(authorize)))

	policy, contentType, size := "videos", "video/mp4", int64(len(content))
	order := broker.CreateUpload{Policy: &policy, Filename: "holiday.mp4", ContentType: &contentType, SizeBytes: &size}
	key := rand.Text()
	params := &broker.CreateUploadParams{IdempotencyKey: &key}
	created := done(client.CreateUploadWithResponse(ctx, params, order)).JSON201
	check(created != nil && created.State == broker.StatePending, created)
	repeated := done(client.CreateUploadWithResponse(ctx, params, order)).JSON201
	check(repeated != nil && repeated.ID == created.ID, repeated)

	early := done(client.CompleteUploadWithResponse(ctx, created.ID)).ApplicationProblemJSON409
	check(early != nil && early.Code == broker.CodeNotComplete, early)

	put := done(http.NewRequest(created.Transfer.Method, created.Transfer.URI, bytes.NewReader(content)))
	for name, value := range created.Transfer.Headers {
		put.Header.Set(name, value)
	}
	sent := done(http.DefaultClient.Do(put))
	check(sent.StatusCode == 200, sent)
	completed := done(client.CompleteUploadWithResponse(ctx, created.ID)).JSON200
	check(completed != nil && completed.State == broker.StateCompleted && completed.Result.SizeBytes == size, completed)

	got := done(client.GetUploadWithResponse(ctx, created.ID, nil)).JSON200
	check(got != nil && got.Result.Generation == completed.Result.Generation, got)
	state, limit := broker.StateCompleted, int32(200)
	listed := done(client.ListUploadsWithResponse(ctx, &broker.ListUploadsParams{State: &state, Limit: &limit})).JSON200
	check(listed != nil && len(listed.Uploads) > 0, listed)
	policies := done(client.ListPoliciesWithResponse(ctx)).JSON200
	check(policies != nil && policies.Policies[0].Name == "videos", policies)

	unknown := done(client.GetUploadWithResponse(ctx, strings.Repeat("0", 34), nil)).ApplicationProblemJSON404
	check(unknown != nil && unknown.Code == broker.CodeNotFound, unknown)
	size = 1 << 40
	large := done(client.CreateUploadWithResponse(ctx, nil, order)).ApplicationProblemJSON422
	check(large != nil && large.Code == broker.CodePolicyViolation, large)
	check((*large.Violations)[0].Limit == "max_size", large)
	fmt.Println("passed")
}

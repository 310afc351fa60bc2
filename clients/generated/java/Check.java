import broker.ApiClient;
import broker.ApiException;
import broker.JSON;
import broker.api.PoliciesApi;
import broker.api.UploadsApi;
import broker.model.Code;
import broker.model.CreateUpload;
import broker.model.Problem;
import broker.model.State;
import broker.model.Upload;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.UUID;

/** The generated Java client, used as an application uses it. */
final class Check {
    private static void check(boolean holds, Object seen) {
        if (!holds) throw new AssertionError(seen);
    }

    private interface Call {
        Object make() throws ApiException;
    }

    /** The problem that the broker answers with. */
    private static Problem problem(Call call) throws Exception {
        try {
            throw new AssertionError(call.make());
        } catch (ApiException refused) {
            return JSON.getDefault().getMapper().readValue(refused.getResponseBody(), Problem.class);
        }
    }

    public static void main(String[] arguments) throws Exception {
        byte[] content = new byte[300_000];
        ApiClient client = new ApiClient();
        client.updateBaseUri(System.getenv("BROKER"));
        client.setRequestInterceptor(request -> request.header("authorization", "Bearer " + System.getenv("TOKEN")));
        UploadsApi uploads = new UploadsApi(client);

        CreateUpload order = new CreateUpload().policy("videos").filename("holiday.mp4").contentType("video/mp4").sizeBytes((long) content.length);
        String key = UUID.randomUUID().toString();
        Upload created = uploads.createUpload(order, key);
        String id = created.getId();
        check(created.getState() == State.PENDING, created);
        check(uploads.createUpload(order, key).getId().equals(id), "another upload");

        check(problem(() -> uploads.completeUpload(id)).getCode() == Code.NOT_COMPLETE, "complete too early");

        HttpRequest.Builder put = HttpRequest.newBuilder(URI.create(created.getTransfer().getUri().toString()));
        created.getTransfer().getHeaders().forEach(put::header);
        put.method(created.getTransfer().getMethod(), HttpRequest.BodyPublishers.ofByteArray(content));
        HttpResponse<String> sent = HttpClient.newHttpClient().send(put.build(), HttpResponse.BodyHandlers.ofString());
        check(sent.statusCode() == 200, sent);
        Upload completed = uploads.completeUpload(id);
        check(completed.getState() == State.COMPLETED && completed.getResult().getSizeBytes() == content.length, completed);

        check(uploads.getUpload(id, null).getResult().getGeneration().equals(completed.getResult().getGeneration()), "another object");
        check(uploads.listUploads(State.COMPLETED, 200, null).getUploads().stream().anyMatch(upload -> upload.getId().equals(id)), "not listed");
        check(new PoliciesApi(client).listPolicies().getPolicies().get(0).getName().equals("videos"), "another policy");

        check(problem(() -> uploads.getUpload("0".repeat(34), null)).getCode() == Code.NOT_FOUND, "an unknown upload");
        Problem large = problem(() -> uploads.createUpload(order.sizeBytes(1L << 40), null));
        check(large.getCode() == Code.POLICY_VIOLATION && large.getViolations().get(0).getLimit().equals("max_size"), large);
        System.out.println("passed");
    }
}

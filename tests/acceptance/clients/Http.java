import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** The JDK's HttpClient: its default is HTTP/2, which it asks for by `Upgrade: h2c`. Arguments: URL, version, and text. */
public class Http {
    static final HttpClient.Builder BUILDER = HttpClient.newBuilder();

    static HttpRequest.Builder to(String url) {
        return HttpRequest.newBuilder(URI.create(url)).header("Content-Type", "application/json").header("A2A-Version", "1.0");
    }

    public static void main(String[] given) throws Exception {
        var client = BUILDER.version(HttpClient.Version.valueOf(given[1])).build();
        var message = "{\"message\":{\"messageId\":\"%s\",\"role\":\"ROLE_USER\",\"parts\":[{\"text\":\"" + given[2] + "\"}]}}";
        var call = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}";
        for (int n = 0; n < 3; n++) { // the connection is used again
            var sent = client.send(to(given[0] + "/message:send").POST(BodyPublishers.ofString(message.formatted("s" + n))).build(), BodyHandlers.ofString());
            System.out.println(sent.statusCode() + " " + sent.body());
        }
        var body = call.formatted("SendMessage", message.formatted("j"));
        System.out.println(client.send(to(given[0] + "/").POST(BodyPublishers.ofString(body)).build(), BodyHandlers.ofString()).body());
        var chunked = BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body.replace("\"j\"", "\"c\"").getBytes()));
        System.out.println(client.send(to(given[0] + "/").POST(chunked).expectContinue(true).build(), BodyHandlers.ofString()).body());
        var stream = client.send(to(given[0] + "/message:stream").POST(BodyPublishers.ofString(message.formatted("m"))).build(), BodyHandlers.ofLines());
        System.out.println(String.join("|", stream.body().filter(line -> line.startsWith("data:")).toList()));
        System.out.println(client.send(to(given[0] + "/.well-known/agent-card.json").GET().build(), BodyHandlers.ofString()).statusCode());
        System.out.println(client.send(to(given[0] + "/tasks/none").GET().build(), BodyHandlers.ofString()).statusCode());
    }
}

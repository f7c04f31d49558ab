// Java's clients through the proxy of the system properties, which stands in for the URL that is given. Fails loudly.
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

public class Intercepted {
    public static void main(String[] arguments) throws Exception {
        URI uri = URI.create(arguments[0]);
        int old = 0;
        for (int index = 0; index < 5; index++) {
            HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
            connection.setConnectTimeout(10_000);
            if (connection.getResponseCode() != 200) throw new IOException("" + connection.getResponseCode());
            String body = new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            if (!body.contains("\"target\":\"/java\"")) throw new IOException(body);
            old++;
        }
        InetSocketAddress proxy =
                new InetSocketAddress(System.getProperty("https.proxyHost"), Integer.getInteger("https.proxyPort"));
        HttpClient client = HttpClient.newBuilder()
                .proxy(ProxySelector.of(proxy))
                .version(HttpClient.Version.HTTP_2)
                .connectTimeout(Duration.ofSeconds(10))
                .build();
        HttpResponse<String> answer = null;
        for (int index = 0; index < 10; index++) {
            HttpRequest request = HttpRequest.newBuilder(uri)
                    .POST(HttpRequest.BodyPublishers.ofString("x".repeat(index * 1000)))
                    .build();
            answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) throw new IOException(answer.toString());
            if (!answer.body().contains("\"bytes\":" + index * 1000 + ",")) throw new IOException(answer.body());
        }
        System.out.println("intercepted: HttpURLConnection " + old + ", java.net.http 10 over " + answer.version());
    }
}

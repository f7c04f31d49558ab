// Java's clients that log in at the proxy of the system properties: Login.java URL USER, the password in PASSWORD. Prints a line
// for each: first with that password, then with a wrong one.
import java.io.IOException;
import java.net.Authenticator;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

public class Login {
    static Authenticator with(String user, String password) {
        return new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                return getRequestorType() == RequestorType.PROXY
                        ? new PasswordAuthentication(user, password.toCharArray())
                        : null;
            }
        };
    }

    static String http(URI uri, Authenticator who) throws InterruptedException {
        InetSocketAddress proxy =
                new InetSocketAddress(System.getProperty("https.proxyHost"), Integer.getInteger("https.proxyPort"));
        HttpClient client = HttpClient.newBuilder()
                .proxy(ProxySelector.of(proxy))
                .authenticator(who)
                .connectTimeout(Duration.ofSeconds(20))
                .build();
        try {
            HttpRequest request = HttpRequest.newBuilder(uri).build();
            return "" + client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
        } catch (IOException error) {
            return error.toString();
        }
    }

    static String old(URI uri, Authenticator who) {
        try {
            HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
            connection.setAuthenticator(who);
            connection.setRequestProperty("Connection", "close");
            return "" + connection.getResponseCode();
        } catch (IOException error) {
            return error.toString();
        }
    }

    public static void main(String[] arguments) throws Exception {
        URI uri = URI.create(arguments[0]);
        for (String password : new String[] {System.getenv("PASSWORD"), "wrong"}) {
            Authenticator who = with(arguments[1], password);
            System.out.println("java.net.http " + http(uri, who));
            System.out.println("HttpURLConnection " + old(uri, who));
        }
    }
}

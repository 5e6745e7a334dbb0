// Uploads of Java's HttpClient, which asks for HTTP/2 by an upgrade: Uploads.java URL FILE...; the last file is refused.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;

class Uploads {
    static HttpClient client;
    static String url;

    static void print(String label, String path, BodyPublisher body, String... headers) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url + path));
        if (body != null) request.POST(body);
        if (headers.length > 0) request.headers(headers);
        var answer = client.send(request.build(), BodyHandlers.ofString());
        System.out.println(label + " " + answer.body() + " " + answer.statusCode());
    }

    static BodyPublisher chunked(byte[] body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body));
    }

    public static void main(String... arguments) throws Exception {
        System.setProperty("jdk.httpclient.allowRestrictedHeaders", "connection");
        client = HttpClient.newHttpClient();
        url = arguments[0];
        byte[] body = {};
        print("GET", "/get", null);
        for (int number = 1; number < arguments.length; number++) {
            Path file = Path.of(arguments[number]);
            body = Files.readAllBytes(file);
            print("plain " + file.getFileName(), "/plain", BodyPublishers.ofByteArray(body));
            print("chunked " + file.getFileName(), "/chunked", chunked(body));
        }
        print("kept plain", "/refused/401", BodyPublishers.ofByteArray(body));
        print("kept chunked", "/refused/404", chunked(body));
        print("closed plain", "/refused/413", BodyPublishers.ofByteArray(body), "connection", "close");
        print("closed chunked", "/refused/429", chunked(body), "connection", "close");
        print("after", "/after", null);
    }
}

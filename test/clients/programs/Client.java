// GET and POST with the JDK's clients: `java Client.java HttpClient|HttpURLConnection URL`. Prints what each answered, a JSON line each.

import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;

public final class Client {
    public static void main(String[] args) throws Exception {
        URI uri = URI.create(args[1]);
        HttpClient client = args[0].equals("HttpClient") ? HttpClient.newHttpClient() : null;
        for (String body : new String[] {null, "body"}) {
            if (client != null) {
                modern(client, uri, body);
            } else {
                classic(uri, body);
            }
        }
    }

    private static void modern(HttpClient client, URI uri, String body) throws Exception {
        HttpRequest.Builder builder = HttpRequest.newBuilder(uri).header("Authorization", "Bearer mine");
        HttpRequest request = body == null ? builder.build() : builder.POST(BodyPublishers.ofString(body)).build();
        HttpResponse<String> response = client.send(request, BodyHandlers.ofString());
        show(response.statusCode(), response.version().toString(), response.body());
    }

    private static void classic(URI uri, String body) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setRequestProperty("Authorization", "Bearer mine");
        if (body != null) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        }
        try (InputStream in = connection.getInputStream()) {
            show(connection.getResponseCode(), "", new String(in.readAllBytes(), StandardCharsets.UTF_8));
        }
    }

    private static void show(int status, String version, String body) {
        System.out.println("{\"status\":" + status + ",\"version\":\"" + version + "\",\"body\":" + body + "}");
    }
}

// A Java program that is told what to trust by -Djavax.net.ssl.trustStore.
// Client socket ADDRESS PORT HOST, or Client http URL
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

class Client {
  public static void main(String[] args) throws Exception {
    if (args[0].equals("http")) http(args[1]);
    else socket(args[1], Integer.parseInt(args[2]), args[3]);
  }

  static void socket(String address, int port, String host) throws Exception {
    Socket plain = new Socket();
    plain.connect(new InetSocketAddress(address, port), 10_000);
    SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
    try (SSLSocket socket = (SSLSocket) factory.createSocket(plain, host, port, true)) {
      SSLParameters parameters = socket.getSSLParameters();
      parameters.setEndpointIdentificationAlgorithm("HTTPS");
      socket.setSSLParameters(parameters);
      socket.startHandshake();
      System.out.println("ok " + socket.getSession().getProtocol());
    }
  }

  static void http(String url) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    HttpResponse<String> response = client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString());
    System.out.println(response.statusCode() + " " + response.body());
  }
}

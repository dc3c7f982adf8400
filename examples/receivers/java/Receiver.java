// Receiver of postbacks with Java's standard library alone (Java 17 or newer).
//
//   WEBHOOK_SECRET=whsec_... java Receiver.java     receives on http://127.0.0.1:8080/ (PORT; 0 takes a free one)
//   java Receiver.java state                        prints the newest of each subscriber, message and pass
//
// What it stores stands in DATA_DIR (receiver-data). Before it stands your web server, which speaks TLS.

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Deque;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.xml.XMLConstants;
import javax.xml.parsers.ParserConfigurationException;
import javax.xml.parsers.SAXParserFactory;
import org.xml.sax.Attributes;
import org.xml.sax.InputSource;
import org.xml.sax.SAXException;
import org.xml.sax.helpers.DefaultHandler;

public final class Receiver {
    static final int BODY_BYTES_MAX = 2 * 1024 * 1024; // no postback has more than 2 MB
    static final long TOLERANCE_S = 300; // between the time of a signature and now
    static final int DEPTH_MAX = 16; // elements inside of each other; a postback has 3 today

    /** Standard output in UTF-8, whatever the locale. */
    static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    /** Tags that name what an event is about. Of two events about the same, the one with the higher sequence is newer. */
    static final Map<String, List<String>> SUBJECTS = Map.of(
            "SUB", List.of("MOBILE", "CAMPAIGNID"),
            "EMAIL_SUB", List.of("EMAIL", "CAMPAIGNID"),
            "SMS_MT", List.of("TRACKINGID"),
            "MMS_MT", List.of("TRACKINGID", "MMSID"),
            "GENERATE_PASS", List.of("REFERENCEDBY", "REFERENCEVALUE"));

    /** A request that gets another status than 200. */
    @SuppressWarnings("serial")
    static final class Refused extends Exception {
        final int status;

        Refused(int status, String reason) {
            super(reason);
            this.status = status;
        }
    }

    // -- the request -------------------------------------------------------------------------------------------------

    /** Returns the value of a header that is there once, or nothing. */
    static String only(Headers headers, String name) {
        List<String> values = headers.getOrDefault(name, List.of());
        return values.size() == 1 ? values.get(0) : "";
    }

    static byte[] readBody(HttpExchange exchange) throws Refused {
        try {
            String length = exchange.getRequestHeaders().getFirst("Content-Length");
            byte[] body = length != null && Long.parseLong(length) > BODY_BYTES_MAX
                    ? null : exchange.getRequestBody().readNBytes(BODY_BYTES_MAX + 1);
            if (body == null || body.length > BODY_BYTES_MAX) {
                throw new Refused(413, "the body is too long");
            }
            return body;
        } catch (IOException | NumberFormatException error) {
            throw new Refused(400, "the body ended early");
        }
    }

    /** Returns the id of a request that is signed with the key, and recently; the body is as it arrived. */
    static String checkSignature(byte[] key, Headers headers, byte[] body, long nowS)
            throws Refused, GeneralSecurityException {
        String id = only(headers, "webhook-id");
        String timestamp = only(headers, "webhook-timestamp");
        String signatures = only(headers, "webhook-signature");
        if (id.isEmpty() || timestamp.isEmpty() || signatures.isEmpty()) {
            throw new Refused(401, "webhook-id, webhook-timestamp and webhook-signature must be there once each");
        }
        if (!timestamp.matches("[0-9]{1,12}") || Math.abs(nowS - Long.parseLong(timestamp)) > TOLERANCE_S) {
            throw new Refused(401, "webhook-timestamp is not the time of the last 5 minutes");
        }
        if (!id.matches("[\\x21-\\x7e]{1,255}")) {
            throw new Refused(400, "webhook-id is no id of a postback");
        }
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.US_ASCII));
        byte[] expected = mac.doFinal(body);
        // Several while the secret is being changed; one that fits is enough.
        for (String word : signatures.split(" ")) {
            if (word.startsWith("v1,") && MessageDigest.isEqual(expected, decode(word.substring(3)))) {
                return id;
            }
        }
        throw new Refused(401, "no signature fits");
    }

    /** Returns the bytes of a text in base64; none where it is something else. */
    static byte[] decode(String text) {
        try {
            return Base64.getDecoder().decode(text);
        } catch (IllegalArgumentException error) {
            return new byte[0];
        }
    }

    static long readSequence(Headers headers) throws Refused {
        String text = only(headers, "Postback-Sequence");
        if (!text.matches("[0-9]{1,15}")) {
            throw new Refused(400, "Postback-Sequence must be there once, and be a number");
        }
        return Long.parseLong(text);
    }

    /** An element of a document: its text, or what it holds by name. */
    record Element(String name, Map<String, List<Object>> children, StringBuilder text) {
        Element(String name) {
            this(name, new LinkedHashMap<>(), new StringBuilder());
        }

        Object value() {
            return children.isEmpty() ? text.toString() : children;
        }
    }

    /**
     * Returns a document's tags: the text of each, or the lists of what it holds by name.
     *
     * <p>A postback has no DOCTYPE, no comment and no CDATA, so the first sign of one is refused; the parser would refuse a
     * DOCTYPE, too, before anything in it is read.
     */
    static Map<String, Object> parse(byte[] body) throws Refused {
        if (new String(body, StandardCharsets.ISO_8859_1).contains("<!")) {
            throw new Refused(400, "the body is no postback: it has a DOCTYPE, a comment or CDATA");
        }
        Element document = new Element("");
        Deque<Element> elements = new ArrayDeque<>(List.of(document));
        DefaultHandler handler = new DefaultHandler() {
            @Override
            public void startElement(String uri, String local, String name, Attributes attributes) throws SAXException {
                if (elements.size() > DEPTH_MAX) {
                    throw new SAXException("it is nested too deeply");
                }
                elements.push(new Element(name));
            }

            @Override
            public void endElement(String uri, String local, String name) {
                Element element = elements.pop();
                elements.peek().children().computeIfAbsent(name, key -> new ArrayList<>()).add(element.value());
            }

            @Override
            public void characters(char[] characters, int start, int length) {
                elements.peek().text().append(characters, start, length);
            }
        };
        InputSource source = new InputSource(new ByteArrayInputStream(body));
        source.setEncoding("UTF-8"); // whatever encoding the document claims
        try {
            SAXParserFactory factory = SAXParserFactory.newInstance();
            factory.setFeature(XMLConstants.FEATURE_SECURE_PROCESSING, true);
            factory.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
            factory.newSAXParser().parse(source, handler);
        } catch (SAXException | IOException error) {
            throw new Refused(400, "the body is no postback: " + error.getMessage());
        } catch (ParserConfigurationException error) {
            throw new IllegalStateException(error);
        }
        return tags(document);
    }

    static Map<String, Object> tags(Element document) throws Refused {
        List<Object> roots = document.children().get("POSTBACK");
        if (roots == null || !(roots.get(0) instanceof Map<?, ?> children)) {
            throw new Refused(400, "the body is no postback: its root is not POSTBACK with tags");
        }
        Map<String, Object> tags = new LinkedHashMap<>();
        for (Map.Entry<?, ?> child : children.entrySet()) {
            List<?> values = (List<?>) child.getValue();
            if (values.size() > 1) {
                throw new Refused(400, "the body is no postback: a tag is there twice");
            }
            tags.put((String) child.getKey(), values.get(0));
        }
        if (!(tags.get("ORIGIN") instanceof String) || !(tags.get("CODE") instanceof String)) {
            throw new Refused(400, "the body is no postback: it has no ORIGIN or no CODE");
        }
        return tags; // tags and codes that we do not know are stored as well: they are new ones
    }

    // -- the store ---------------------------------------------------------------------------------------------------

    // A directory whose file names are unique stands for a table here: in your program it is a table of your database,
    // with a unique column for webhook-id. Delete what has not come for 31 days.
    static final Path DATA_DIR = Path.of(System.getenv().getOrDefault("DATA_DIR", "receiver-data"));
    static final Path TEMPORARY = DATA_DIR.resolve("temporary");
    static final Path POSTBACKS = DATA_DIR.resolve("postbacks");
    static final Path DONE = DATA_DIR.resolve("done");
    static final Path STATES = DATA_DIR.resolve("states");

    /** What is stored: some words, one a line, then the bytes of a body. */
    record Stored(List<String> words, byte[] body) {
        static Stored read(Path path, int wordCount) throws IOException {
            try (InputStream in = Files.newInputStream(path)) {
                List<String> words = new ArrayList<>();
                for (int word = 0; word < wordCount; word++) {
                    var bytes = new ByteArrayOutputStream();
                    for (int next = in.read(); next != '\n' && next != -1; next = in.read()) {
                        bytes.write(next);
                    }
                    words.add(bytes.toString(StandardCharsets.UTF_8));
                }
                return new Stored(words, in.readAllBytes());
            }
        }

        /** Puts it on the disk, in a temporary file. */
        Path write() throws IOException {
            Path path = Files.createTempFile(TEMPORARY, "", "");
            try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE)) {
                String head = words.stream().map(word -> word.replace('\n', ' ') + "\n").collect(Collectors.joining());
                writeAll(channel, head.getBytes(StandardCharsets.UTF_8));
                writeAll(channel, body);
                channel.force(true);
            }
            return path;
        }

        private static void writeAll(FileChannel channel, byte[] bytes) throws IOException {
            for (ByteBuffer buffer = ByteBuffer.wrap(bytes); buffer.hasRemaining();) {
                channel.write(buffer);
            }
        }
    }

    /** Makes a file's name of an id or a subject, which may hold any character. */
    static String hash(String text) {
        try {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Puts a directory's names on the disk. */
    static void syncDirectory(Path directory) throws IOException {
        try (FileChannel channel = FileChannel.open(directory, StandardOpenOption.READ)) {
            channel.force(true);
        }
    }

    /**
     * Stores a postback unless its id is known, and returns whether it was new. A link is made once, and to a file that
     * is complete: of two at once the second finds all of the first.
     */
    static boolean store(String id, long sequence, byte[] body) throws IOException {
        Path temporary = new Stored(List.of(id, Long.toString(sequence)), body).write();
        Path path = POSTBACKS.resolve(hash(id));
        boolean isNew = true;
        try {
            Files.createLink(path, temporary);
        } catch (FileAlreadyExistsException error) {
            isNew = false;
            Files.setLastModifiedTime(path, FileTime.fromMillis(System.currentTimeMillis())); // when it last came
        } finally {
            Files.delete(temporary);
        }
        syncDirectory(POSTBACKS);
        return isNew;
    }

    // -- the work, after the answer ----------------------------------------------------------------------------------

    static final ScheduledExecutorService WORK = Executors.newSingleThreadScheduledExecutor();

    static void handleLater(String name) {
        WORK.execute(() -> {
            try {
                handle(name);
            } catch (IOException | Refused | RuntimeException error) {
                System.err.println("not handled, again in a second: " + error);
                WORK.schedule(() -> handleLater(name), 1, TimeUnit.SECONDS);
            }
        });
    }

    /**
     * Your program begins here: it keeps the newest of each subject, and prints the postback. If the process ends in the
     * middle, the next one begins with this postback again.
     */
    static void handle(String name) throws IOException, Refused {
        Stored stored = Stored.read(POSTBACKS.resolve(name), 2);
        String id = stored.words().get(0);
        long sequence = Long.parseLong(stored.words().get(1));
        Map<String, Object> tags = parse(stored.body());
        String subject = subjectOf(tags);
        boolean isNewest = subject == null || change(subject, sequence, (String) tags.get("CODE"), id);
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("id", id);
        line.put("sequence", sequence);
        line.put("newest", isNewest);
        line.put("tags", tags);
        OUT.println(json(line));
        Files.write(DONE.resolve(name), new byte[0]);
    }

    /** Keeps a state unless it is older than the one that is known. */
    static boolean change(String subject, long sequence, String code, String id) throws IOException {
        Path path = STATES.resolve(hash(subject));
        if (Files.exists(path) && sequence < Long.parseLong(Stored.read(path, 4).words().get(1))) {
            return false;
        }
        Path temporary = new Stored(List.of(subject, Long.toString(sequence), code, id), new byte[0]).write();
        Files.move(temporary, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        syncDirectory(STATES);
        return true;
    }

    /** Returns what an event is about; null for a message from a person, which is about itself. */
    static String subjectOf(Map<String, Object> tags) {
        String origin = (String) tags.get("ORIGIN");
        List<String> parts = new ArrayList<>(List.of(origin));
        for (String name : SUBJECTS.getOrDefault(origin, List.of())) {
            if (tags.get(name) instanceof String value) {
                parts.add(value);
            }
        }
        if (parts.size() == 1) {
            return null;
        }
        // A message, or where no message is meant its content.
        return String.join("/", origin.equals("MMS_MT") ? parts.subList(0, 2) : parts);
    }

    static void printStates() throws IOException {
        for (Path path : list(STATES)) {
            List<String> words = Stored.read(path, 4).words();
            Map<String, Object> state = new LinkedHashMap<>();
            state.put("subject", words.get(0));
            state.put("sequence", Long.parseLong(words.get(1)));
            state.put("code", words.get(2));
            state.put("id", words.get(3));
            OUT.println(json(state));
        }
    }

    static List<Path> list(Path directory) throws IOException {
        try (Stream<Path> paths = Files.list(directory)) {
            return paths.sorted().toList();
        }
    }

    /** Writes JSON, which Java has no class for. */
    static String json(Object value) {
        if (value instanceof Map<?, ?> map) {
            return map.entrySet().stream()
                    .map(entry -> json(entry.getKey()) + ":" + json(entry.getValue()))
                    .collect(Collectors.joining(",", "{", "}"));
        }
        if (value instanceof List<?> list) {
            return list.stream().map(Receiver::json).collect(Collectors.joining(",", "[", "]"));
        }
        if (!(value instanceof String text)) {
            return String.valueOf(value);
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char character : text.toCharArray()) {
            if (character < ' ') {
                quoted.append(String.format("\\u%04x", (int) character));
            } else if (character == '"' || character == '\\') {
                quoted.append('\\').append(character);
            } else {
                quoted.append(character);
            }
        }
        return quoted.append('"').toString();
    }

    // -- the server --------------------------------------------------------------------------------------------------

    /** Checks, stores, answers. The work comes afterwards. */
    static void receive(byte[] key, HttpExchange exchange) throws IOException {
        try (exchange) {
            try {
                Headers headers = exchange.getRequestHeaders();
                if (!exchange.getRequestMethod().equals("POST")) {
                    exchange.getResponseHeaders().set("Allow", "POST");
                    throw new Refused(405, "postbacks are POSTed here");
                }
                byte[] body = readBody(exchange);
                String id = checkSignature(key, headers, body, System.currentTimeMillis() / 1000);
                long sequence = readSequence(headers);
                parse(body);
                boolean isNew = !only(headers, "Postback-Test").equals("1") && store(id, sequence, body);
                answer(exchange, 200, "OK");
                if (isNew) {
                    handleLater(hash(id));
                }
            } catch (Refused refused) {
                answer(exchange, refused.status, refused.getMessage());
            } catch (IOException | GeneralSecurityException | RuntimeException error) {
                // Not stored, so not 200: it comes again in 5 minutes.
                System.err.println("not stored: " + error);
                answer(exchange, 503, "cannot store it now");
            }
        }
    }

    /** Answers; the sender keeps the first 256 bytes of the reason where the status is not 200. */
    static void answer(HttpExchange exchange, int status, String reason) throws IOException {
        byte[] body = reason.getBytes(StandardCharsets.UTF_8);
        boolean isHead = exchange.getRequestMethod().equals("HEAD");
        exchange.getResponseHeaders().set("Content-Type", "text/plain; charset=utf-8");
        exchange.sendResponseHeaders(status, isHead ? -1 : body.length);
        if (!isHead) {
            exchange.getResponseBody().write(body);
        }
    }

    static byte[] readKey() {
        String secret = System.getenv().getOrDefault("WEBHOOK_SECRET", "");
        byte[] key = secret.startsWith("whsec_") ? decode(secret.substring(6)) : new byte[0];
        if (key.length == 0) {
            System.err.println("Set WEBHOOK_SECRET to the secret of your account: whsec_ and base64.");
            System.exit(1);
        }
        return key;
    }

    public static void main(String[] arguments) throws IOException {
        for (Path directory : List.of(TEMPORARY, POSTBACKS, DONE, STATES)) {
            Files.createDirectories(directory);
        }
        if (arguments.length == 1 && arguments[0].equals("state")) {
            printStates();
            return;
        }
        byte[] key = readKey();
        for (Path path : list(TEMPORARY)) {
            Files.delete(path); // of a process that was killed
        }
        List<String> left = new ArrayList<>(); // by an earlier process
        for (Path path : list(POSTBACKS)) {
            if (!Files.exists(DONE.resolve(path.getFileName()))) {
                left.add(path.getFileName().toString());
            }
        }
        System.setProperty("sun.net.httpserver.nodelay", "true");
        System.setProperty("sun.net.httpserver.maxReqTime", "10"); // seconds; who has not sent all by then is cut off
        System.setProperty("sun.net.httpserver.idleInterval", "130"); // postbacks leaves one that has rested for 118 s
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 128);
        server.setExecutor(Executors.newCachedThreadPool()); // of a fixed number slow clients could take all
        server.createContext("/", exchange -> receive(key, exchange));
        OUT.println("listening on http://127.0.0.1:" + server.getAddress().getPort() + "/");
        left.forEach(Receiver::handleLater);
        server.start();
    }
}

<?php
// Receiver of postbacks with PHP 8.1 or newer and the extensions pdo_sqlite and xmlreader.
//
//   WEBHOOK_SECRET=whsec_... php receiver.php     receives on http://127.0.0.1:8080/ (PORT; 0 takes a free one)
//   php receiver.php state                        prints the newest of each subscriber, message and pass
//
// The first one is for your own machine: it starts PHP's own web server, which reads a body of any length, and the work.
// On a server php-fpm runs this file for each POST, behind nginx with `client_max_body_size 2m`, and systemd keeps
// `php receiver.php work` running. What is stored stands in DATA_DIR (receiver-data).
declare(strict_types=1);

const BODY_BYTES_MAX = 2 * 1024 * 1024; // no postback has more than 2 MB
const TOLERANCE_S = 300; // between the time of a signature and now
const DEPTH_MAX = 16; // elements inside of each other; a postback has 3 today
// Tags that name what an event is about. Of two events about the same, the one with the higher sequence is newer.
const SUBJECTS = [
    'SUB' => ['MOBILE', 'CAMPAIGNID'],
    'EMAIL_SUB' => ['EMAIL', 'CAMPAIGNID'],
    'SMS_MT' => ['TRACKINGID'],
    'MMS_MT' => ['TRACKINGID', 'MMSID'],
    'GENERATE_PASS' => ['REFERENCEDBY', 'REFERENCEVALUE'],
];
const SCHEMA = <<<'SQL'
CREATE TABLE IF NOT EXISTS postbacks (
  id TEXT PRIMARY KEY,               -- webhook-id: a repeat cannot be stored
  sequence INTEGER NOT NULL,
  body BLOB NOT NULL,
  received_s INTEGER NOT NULL,       -- delete what is older than 30 days
  is_done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS open_postbacks ON postbacks (sequence) WHERE NOT is_done;
CREATE TABLE IF NOT EXISTS states (
  subject TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  code TEXT NOT NULL,
  id TEXT NOT NULL
);
SQL;

// A request that gets another status than 200.
class Refused extends Exception
{
}

// -- the request ---------------------------------------------------------------------------------------------------

// Reads the body as it arrived: php://input, never a variable that PHP has made of it.
function read_body(): string
{
    if ((int) ($_SERVER['CONTENT_LENGTH'] ?? 0) > BODY_BYTES_MAX) {
        throw new Refused('the body is too long', 413);
    }
    $body = file_get_contents('php://input', false, null, 0, BODY_BYTES_MAX + 1);
    if (strlen($body) > BODY_BYTES_MAX) {
        throw new Refused('the body is too long', 413);
    }
    return $body;
}

// Returns the id of a request that is signed with the key, and recently.
function check_signature(string $key, string $body, int $now_s): string
{
    // A header that is there twice is one text with a comma here, or one of the two, and then no signature fits.
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    $signatures = $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '';
    if ($id === '' || $timestamp === '' || $signatures === '') {
        throw new Refused('webhook-id, webhook-timestamp and webhook-signature must be there', 401);
    }
    if (!preg_match('/^[0-9]{1,12}$/D', $timestamp) || abs($now_s - (int) $timestamp) > TOLERANCE_S) {
        throw new Refused('webhook-timestamp is not the time of the last 5 minutes', 401);
    }
    if (!preg_match('/^[\x21-\x7e]{1,255}$/D', $id)) {
        throw new Refused('webhook-id is no id of a postback', 400);
    }
    $expected = hash_hmac('sha256', "$id.$timestamp.$body", $key, true);
    // Several while the secret is being changed; one that fits is enough.
    foreach (explode(' ', $signatures) as $word) {
        [$version, $text] = explode(',', $word, 2) + [1 => ''];
        $signature = base64_decode($text, true);
        if ($version === 'v1' && $signature !== false && hash_equals($expected, $signature)) {
            return $id;
        }
    }
    throw new Refused('no signature fits', 401);
}

function read_sequence(): int
{
    $text = $_SERVER['HTTP_POSTBACK_SEQUENCE'] ?? '';
    if (!preg_match('/^[0-9]{1,15}$/D', $text)) {
        throw new Refused('Postback-Sequence must be there once, and be a number', 400);
    }
    return (int) $text;
}

// Returns a document's tags: the text of each, or the lists of what it holds by name.
function parse(string $body): array
{
    try {
        return read_tags($body);
    } catch (UnexpectedValueException $error) {
        throw new Refused('the body is no postback: ' . $error->getMessage(), 400);
    }
}

// There is no DTD and no entity in a postback, so a DOCTYPE is refused before anything in it is read.
function read_tags(string $body): array
{
    if (preg_match('//u', $body) !== 1 || str_contains($body, "\0") || $body === '') {
        throw new UnexpectedValueException('it is no UTF-8');
    }
    libxml_use_internal_errors(true);
    libxml_clear_errors();
    $reader = XMLReader::XML($body, 'UTF-8', LIBXML_NONET);
    $elements = [['', [], '']];
    while ($reader->read()) {
        switch ($reader->nodeType) {
            case XMLReader::DOC_TYPE:
                throw new UnexpectedValueException('it has a DOCTYPE');
            case XMLReader::ELEMENT:
                if (count($elements) > DEPTH_MAX) {
                    throw new UnexpectedValueException('it is nested too deeply');
                }
                $elements[] = [$reader->name, [], ''];
                if (!$reader->isEmptyElement) {
                    break;
                }
                // An empty element ends as it begins.
            case XMLReader::END_ELEMENT:
                [$name, $children, $text] = array_pop($elements);
                $elements[array_key_last($elements)][1][$name][] = $children ?: $text;
                break;
            case XMLReader::TEXT:
            case XMLReader::CDATA:
            case XMLReader::WHITESPACE:
            case XMLReader::SIGNIFICANT_WHITESPACE:
                $elements[array_key_last($elements)][2] .= $reader->value;
        }
    }
    if ($errors = libxml_get_errors()) {
        throw new UnexpectedValueException(trim($errors[0]->message));
    }
    $children = $elements[0][1]['POSTBACK'][0] ?? null;
    if (!is_array($children)) {
        throw new UnexpectedValueException('its root is not POSTBACK with tags');
    }
    if (max(array_map('count', $children)) > 1) {
        throw new UnexpectedValueException('a tag is there twice');
    }
    $tags = array_map(fn ($values) => $values[0], $children);
    if (!is_string($tags['ORIGIN'] ?? null) || !is_string($tags['CODE'] ?? null)) {
        throw new UnexpectedValueException('it has no ORIGIN or no CODE');
    }
    return $tags; // tags and codes that we do not know are stored as well: they are new ones
}

// -- the store -----------------------------------------------------------------------------------------------------

// Opens the database; a commit is on the disk when it returns.
function connect(): PDO
{
    $database = new PDO('sqlite:' . data_dir() . '/postbacks.db', null, null, [PDO::ATTR_TIMEOUT => 5]);
    $database->exec('PRAGMA synchronous = FULL');
    return $database;
}

function data_dir(): string
{
    return getenv('DATA_DIR') ?: 'receiver-data';
}

// Stores a postback unless its id is known. Of two at once the second waits until the first is committed.
function store(string $id, int $sequence, string $body): void
{
    $insert = connect()->prepare(
        'INSERT INTO postbacks (id, sequence, body, received_s) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING'
    );
    $insert->bindValue(1, $id);
    $insert->bindValue(2, $sequence, PDO::PARAM_INT);
    $insert->bindValue(3, $body, PDO::PARAM_LOB);
    $insert->bindValue(4, time(), PDO::PARAM_INT);
    $insert->execute();
}

// -- the work, in a process of its own -----------------------------------------------------------------------------

// Handles what is stored and not handled yet; returns how many these were.
function work(PDO $database): int
{
    $rows = $database->query(
        'SELECT id, sequence, body FROM postbacks WHERE NOT is_done ORDER BY sequence LIMIT 100'
    )->fetchAll(PDO::FETCH_ASSOC);
    foreach ($rows as $row) {
        handle($database, $row['id'], (int) $row['sequence'], $row['body']);
    }
    return count($rows);
}

// Your program begins here: it keeps the newest of each subject, and prints the postback. If the process ends in the
// middle, the next one begins with this postback again.
function handle(PDO $database, string $id, int $sequence, string $body): void
{
    $tags = parse($body);
    $subject = subject_of($tags);
    $is_newest = true;
    if ($subject !== null) {
        $upsert = $database->prepare(
            'INSERT INTO states (subject, sequence, code, id) VALUES (?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET '
            . 'sequence = excluded.sequence, code = excluded.code, id = excluded.id WHERE excluded.sequence >= sequence'
        );
        $upsert->execute([$subject, $sequence, $tags['CODE'], $id]);
        $is_newest = $upsert->rowCount() === 1;
    }
    print_json(['id' => $id, 'sequence' => $sequence, 'newest' => $is_newest, 'tags' => $tags]);
    $database->prepare('UPDATE postbacks SET is_done = 1 WHERE id = ?')->execute([$id]);
}

// Returns what an event is about; null for a message from a person, which is about itself.
function subject_of(array $tags): ?string
{
    $values = [];
    foreach (SUBJECTS[$tags['ORIGIN']] ?? [] as $name) {
        if (is_string($tags[$name] ?? null)) {
            $values[] = $tags[$name];
        }
    }
    if ($tags['ORIGIN'] === 'MMS_MT') {
        $values = array_slice($values, 0, 1); // the message, or where no message is meant its content
    }
    return $values ? implode('/', [$tags['ORIGIN'], ...$values]) : null;
}

function print_json(mixed $value): void
{
    fwrite(STDOUT, json_encode($value, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR) . "\n");
}

// -- the server ----------------------------------------------------------------------------------------------------

// Checks, stores, answers.
function receive(): void
{
    try {
        if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
            header('Allow: POST');
            throw new Refused('postbacks are POSTed here', 405);
        }
        $body = read_body();
        $id = check_signature(read_key(), $body, time());
        $sequence = read_sequence();
        parse($body);
        if (($_SERVER['HTTP_POSTBACK_TEST'] ?? '') !== '1') {
            store($id, $sequence, $body);
        }
        answer(200, 'OK');
    } catch (Refused $refused) {
        answer($refused->getCode(), $refused->getMessage());
    } catch (Throwable $error) {
        // Not stored, so not 200: it comes again in 5 minutes.
        error_log("not stored: {$error->getMessage()}");
        answer(503, 'cannot store it now');
    }
}

// The sender keeps the first 256 bytes of the reason where the status is not 200.
function answer(int $status, string $reason): void
{
    http_response_code($status);
    header('Content-Type: text/plain; charset=utf-8');
    echo $reason;
}

function read_key(): string
{
    $secret = getenv('WEBHOOK_SECRET') ?: '';
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : '';
    if (!$key) {
        throw new RuntimeException('Set WEBHOOK_SECRET to the secret of your account: whsec_ and base64.');
    }
    return $key;
}

// Runs PHP's own web server, four requests at a time, until Ctrl-C; returns the process.
function start_server(): mixed
{
    read_key();
    $port = getenv('PORT') === false ? '8080' : getenv('PORT');
    $probe = @stream_socket_server("tcp://127.0.0.1:$port", $code, $reason)
        ?: throw new RuntimeException("Cannot listen: $reason");
    $address = stream_socket_get_name($probe, false);
    fclose($probe);
    $server = proc_open(
        [PHP_BINARY, '-q', '-d', 'log_errors=1', '-d', 'error_log=/dev/stderr', '-S', $address, __FILE__],
        [STDIN, STDERR, STDERR],
        $pipes,
        null,
        ['PHP_CLI_SERVER_WORKERS' => '4'] + getenv()
    );
    while (!@stream_socket_client("tcp://$address")) {
        if (!proc_get_status($server)['running']) {
            throw new RuntimeException("The web server does not start on $address.");
        }
        usleep(10_000);
    }
    fwrite(STDOUT, "listening on http://$address/\n");
    return $server;
}

function main(string $command): void
{
    if (!is_dir(data_dir())) {
        mkdir(data_dir(), 0700, true);
    }
    $database = connect();
    $database->exec(SCHEMA);
    if ($command === 'state') {
        foreach ($database->query('SELECT * FROM states ORDER BY subject', PDO::FETCH_ASSOC) as $state) {
            print_json($state);
        }
        return;
    }
    $server = $command === 'work' ? null : start_server();
    while ($server === null || proc_get_status($server)['running']) {
        try {
            if (work($database ??= connect()) === 0) {
                usleep(50_000);
            }
        } catch (PDOException $error) {
            error_log("not handled, again in a second: {$error->getMessage()}");
            $database = null;
            sleep(1);
        }
    }
}

ini_set('display_errors', PHP_SAPI === 'cli' ? 'stderr' : '0');
if (PHP_SAPI !== 'cli') {
    receive();
    return;
}
try {
    main($argv[1] ?? '');
} catch (RuntimeException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}

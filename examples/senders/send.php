<?php
// Send one postback from PHP 8, with nothing but PHP: php send.php ACCOUNT EVENT.json [ID]
// The broker is POSTBACKS_BROKER_URL: redis://user:password@host:6379/0, or rediss:// for TLS.
declare(strict_types=1);

const TIMEOUT_S = 3.0;

function send_postback(string $account, object $event, string $id): void
{
    $body = json_encode(
        [[$account, $event], new stdClass(), new stdClass()],
        JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES
    );
    $message = json_encode([
        'body' => base64_encode($body),
        'content-encoding' => 'utf-8',
        'content-type' => 'application/json',
        'headers' => ['lang' => 'php', 'task' => 'postbacks.send_postback', 'id' => $id],
        'properties' => [
            'correlation_id' => $id,
            'delivery_mode' => 2,
            'delivery_info' => ['exchange' => '', 'routing_key' => 'postbacks'],
            'priority' => 0,
            'body_encoding' => 'base64',
            'delivery_tag' => uuid4(),
        ],
    ], JSON_THROW_ON_ERROR);
    push($message);
}

/** Push a message onto the queue of postbacks; once it returns, the message is accepted. */
function push(string $message): void
{
    $url = parse_url(getenv('POSTBACKS_BROKER_URL') ?: '');
    // What is behind a ? may be the number of the database: not read, it would be the wrong one.
    if (!in_array($url['scheme'] ?? '', ['redis', 'rediss'], true) || !isset($url['host']) || isset($url['query'])) {
        throw new RuntimeException('POSTBACKS_BROKER_URL is no redis:// or rediss:// URL without options behind a ?');
    }
    $address = ($url['scheme'] === 'rediss' ? 'tls' : 'tcp') . "://{$url['host']}:" . ($url['port'] ?? 6379);
    $socket = @stream_socket_client($address, $code, $error, TIMEOUT_S);
    if ($socket === false) {
        throw new RuntimeException("the broker cannot be reached: $error");
    }
    stream_set_timeout($socket, (int) TIMEOUT_S);
    if (isset($url['pass'])) {
        $login = array_filter([$url['user'] ?? '', $url['pass']], fn (string $part) => $part !== '');
        command($socket, 'AUTH', ...array_map('rawurldecode', array_values($login)));
    }
    command($socket, 'SELECT', trim($url['path'] ?? '', '/') ?: '0');
    command($socket, 'LPUSH', 'postbacks', $message);
    fclose($socket);
}

/** Send one command in Redis's protocol, and read its one line of an answer. */
function command($socket, string ...$words): string
{
    $text = '*' . count($words) . "\r\n";
    foreach ($words as $word) {
        $text .= '$' . strlen($word) . "\r\n$word\r\n";
    }
    for ($sent = 0; $sent < strlen($text); $sent += $bytes) {
        $bytes = @fwrite($socket, substr($text, $sent));
        if ($bytes === false || $bytes === 0) {
            throw new RuntimeException("the broker took no $words[0]; whether it has the message is not known");
        }
    }
    $answer = fgets($socket);
    if ($answer === false || $answer === '') {
        throw new RuntimeException("the broker did not answer to $words[0]; whether it has the message is not known");
    }
    if ($answer[0] === '-') {
        throw new RuntimeException('the broker refused: ' . trim($answer, "-\r\n"));
    }
    return rtrim($answer);
}

function uuid4(): string
{
    $bytes = random_bytes(16);
    $bytes[6] = chr(ord($bytes[6]) & 0x0f | 0x40);
    $bytes[8] = chr(ord($bytes[8]) & 0x3f | 0x80);
    return vsprintf('%s%s-%s-%s-%s-%s%s%s', str_split(bin2hex($bytes), 4));
}

if ($argc < 3) {
    fwrite(STDERR, "php send.php ACCOUNT EVENT.json [ID]; - reads the event from standard input\n");
    exit(2);
}
$id = $argv[3] ?? uuid4();
try {
    $text = @file_get_contents($argv[2] === '-' ? 'php://stdin' : $argv[2]);
    if ($text === false) {
        throw new RuntimeException("$argv[2] cannot be read");
    }
    send_postback($argv[1], json_decode($text, false, 512, JSON_THROW_ON_ERROR), $id);
} catch (Throwable $error) {
    fwrite(STDERR, "not sent: {$error->getMessage()}. Send it again with the same id: php send.php … $id\n");
    exit(1);
}
echo "$id\n";

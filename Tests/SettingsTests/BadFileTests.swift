import Foundation
import MQTT
import Testing

@testable import Settings

@Suite("A bad file says what to write instead")
struct BadFileTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var text: String
        var errors: [String]
        init(_ text: String, _ errors: String...) {
            self.text = text
            self.errors = errors
        }
        var testDescription: String { errors.first ?? text }
    }

    @Test("YAML", arguments: yaml)
    func yamlErrors(_ c: Case) { check(c) }

    @Test("Keys and values", arguments: values)
    func valueErrors(_ c: Case) { check(c) }

    @Test("Listeners", arguments: listeners)
    func listenerErrors(_ c: Case) { check(c) }

    @Test("Uplinks", arguments: uplinks)
    func uplinkErrors(_ c: Case) { check(c) }

    @Test("Routes", arguments: routes)
    func routeErrors(_ c: Case) {
        check(
            Case(
                "uplinks:\n  - { name: c, address: mqtt://h, routes: [\n{ \(c.text) } ] }", c.errors[0]))
    }

    private func check(_ c: Case) {
        do throws(SettingsErrors) {
            let settings = try parse(c.text)
            Issue.record("accepted: \(settings)")
        } catch {
            #expect(error.errors.map(\.description) == c.errors)
        }
    }

    static let yaml = [
        Case("gateway: [a", "t.yaml:2:1: this is not valid YAML: did not find expected ',' or ']'"),
        Case("limits:\n\tconnections: 1", "t.yaml:2:1: a tab cannot indent YAML; write: spaces"),
        Case(
            "gateway: a\ngateway: b", "t.yaml:2:1: \"gateway\" is already written in line 1; write: it once"),
        Case(
            "sessions: &a { }\njournal: *a",
            "t.yaml:1:11: anchors (&name) are not understood here; write: the value itself"),
        Case("journal: *a", "t.yaml:1:10: aliases (*name) are not understood here; write: the value itself"),
        Case(
            "gateway: !x a",
            "t.yaml:1:10: tags (!name) are not understood here; write: the value without its tag"),
        Case(
            "gateway: a\n---\ngateway: b",
            "t.yaml:2:1: a second document begins here; write: everything in one document, without `---` between"
        ),
        Case("[a, b]: c", "t.yaml:1:1: a key must be a word; write: key: value"),
        Case(
            String(repeating: "[", count: 17) + String(repeating: "]", count: 17),
            "t.yaml:1:17: lists and mappings are nested more than 16 deep"),
        Case("gateway: a\u{0}b", "t.yaml:1:11: this is not UTF-8 text; write: the file in UTF-8"),
        Case(
            "just text",
            "t.yaml:1:1: the file is a mapping of keys to values, and this is a single value; write: gateway: plant-7"
        ),
        Case(String(repeating: " ", count: 1 << 20 | 1), "t.yaml:1:1: the file has more than 1048576 bytes"),
    ]

    static let values = [
        Case(
            "gatway: a",
            "t.yaml:1:1: unknown key \"gatway\" in the file; write: gateway "
                + "(known here: gateway, state, listeners, sessions, journal, limits, monitoring, uplinks, device-profiles)"
        ),
        Case(
            "limits: { conections: 5, pigeons: 2 }",
            "t.yaml:1:11: unknown key \"conections\" in limits; write: connections "
                + "(known here: connections, packet-size, inflight, queue-messages, connect-timeout, "
                + "validate-payload-format)",
            "t.yaml:1:26: unknown key \"pigeons\" in limits; write: one of "
                + "connections, packet-size, inflight, queue-messages, connect-timeout, validate-payload-format"
        ),
        Case(
            "monitoring: { sys-intervall: 5s }",
            "t.yaml:1:15: unknown key \"sys-intervall\" in monitoring; write: sys-interval (known here: sys-interval)"
        ),
        Case(
            "monitoring: { sys-interval: 100ms }",
            "t.yaml:1:29: sys-interval of 100ms is out of bounds; write: a time from 1s to 1h, or never"),
        Case(
            "monitoring: { sys-interval: 30 }",
            "t.yaml:1:29: sys-interval has no unit; write: sys-interval: 30s, or another of ms, s, m, h, d"),
        Case(
            "monitoring: 10s",
            "t.yaml:1:13: monitoring is a mapping of keys to values, and this is a single value; "
                + "write: monitoring: { sys-interval: 10s }"),
        Case(
            "gateway: plant 7",
            "t.yaml:1:10: gateway is 1 to 64 letters, digits, - and _, not \"plant 7\"; write: gateway: plant-7"
        ),
        Case("gateway:", "t.yaml:1:1: gateway has no value; write: one, or leave the line out"),
        Case("gateway: \"\"", "t.yaml:1:10: gateway is empty; write: gateway: plant-7"),
        Case(
            "gateway: [a]",
            "t.yaml:1:10: gateway is a single value, and this is a list; write: gateway: plant-7"),
        Case(
            "state: data",
            "t.yaml:1:8: state is a path that begins with /, not \"data\"; write: state: /var/lib/tidegate"),
        Case(
            "limits: 5",
            "t.yaml:1:9: limits is a mapping of keys to values, and this is a single value; "
                + "write: limits: { connections: 10000 }"),
        Case(
            "limits: { connections: many }",
            "t.yaml:1:24: connections is a whole number, not \"many\"; write: connections: 10000"),
        Case(
            "limits: { inflight: 0 }",
            "t.yaml:1:21: inflight of 0 is out of bounds; write: a number from 1 to 10000"),
        Case(
            "limits: { packet-size: 1048576 }",
            "t.yaml:1:24: packet-size has no unit; write: packet-size: 1 MiB"),
        Case(
            "limits: { packet-size: 1.5 MiB }",
            "t.yaml:1:24: packet-size is a size such as 1 MiB, not \"1.5 MiB\"; write: packet-size: 1 MiB"),
        Case(
            "limits: { packet-size: 1 MIB }",
            "t.yaml:1:24: packet-size has the unknown unit \"MIB\"; "
                + "write: B, KiB, MiB, GiB, kB, MB or GB, as in 1 MiB"),
        Case(
            "limits: { packet-size: 1 GiB }",
            "t.yaml:1:24: packet-size of 1 GiB is out of bounds; write: a size from 1 KiB to 256 MiB"),
        Case(
            "limits: { packet-size: 99999999999999 TiB }",
            "t.yaml:1:24: packet-size of 99999999999999 TiB is out of bounds; write: a size from 1 KiB to 256 MiB"
        ),
        Case(
            "limits: { connect-timeout: 10 }",
            "t.yaml:1:28: connect-timeout has no unit; write: connect-timeout: 10s, or another of ms, s, m, h, d"
        ),
        Case(
            "limits: { validate-payload-format: on }",
            "t.yaml:1:36: validate-payload-format is true or false, not \"on\"; write: validate-payload-format: true"
        ),
        Case(
            "limits: { connect-timeout: never }",
            "t.yaml:1:28: connect-timeout cannot be never; write: connect-timeout: 10s"),
        Case(
            "limits: { connect-timeout: 10w }",
            "t.yaml:1:28: connect-timeout has the unknown unit \"w\"; write: ms, s, m, h or d, as in 10s"),
        Case(
            "limits: { connect-timeout: soon }",
            "t.yaml:1:28: connect-timeout is a time such as 10s, not \"soon\"; write: connect-timeout: 10s"),
        Case(
            "limits: { connect-timeout: 1h }",
            "t.yaml:1:28: connect-timeout of 1h is out of bounds; write: a time from 1s to 10m"),
        Case(
            "sessions: { expiry-max: 1500ms }",
            "t.yaml:1:25: expiry-max is counted in whole seconds; write: expiry-max: 30d"),
        Case(
            "journal: { allow-volatile: yes }",
            "t.yaml:1:28: allow-volatile is true or false, not \"yes\"; write: allow-volatile: true"),
        Case(
            "journal: { on-failure: panic }",
            "t.yaml:1:24: on-failure is serve or exit, not \"panic\"; write: on-failure: serve"),
        Case(
            "journal: { durability: fast }",
            "t.yaml:1:24: durability is latency, balanced or flash-saver, not \"fast\"; write: durability: balanced"
        ),
        Case(
            "journal: { flash-budget: 2 GiB }",
            "t.yaml:1:26: flash-budget does not say for how long; write: flash-budget: 2 GiB/day"),
        Case(
            "journal: { flash-budget: 2/day }",
            "t.yaml:1:26: flash-budget is a size for each day such as 2 GiB/day, not \"2/day\"; write: flash-budget: 2 GiB/day"
        ),
        Case(
            "journal: { flash-budget: 1 MiB/day }",
            "t.yaml:1:26: flash-budget of 1 MiB/day is out of bounds; write: a size from 16 MiB/day to 8 TiB/day"
        ),
        Case(
            "journal: { segment-size: 128 MiB }",
            "t.yaml:1:26: segment-size of 128 MiB is out of bounds; write: a size from 256 KiB to 64 MiB"),
        Case(
            "journal: { segment-size: 300001 B }",
            "t.yaml:1:26: segment-size is a whole number of 4 KiB pages; write: segment-size: 4 MiB"),
        Case(
            "journal: { size-limit: 16 MiB }",
            "t.yaml:1:10: the journal has room for fewer than 8 segments, and could not reclaim any of them in time; "
                + "write: size-limit: 32 MiB or more"),
        Case(
            "sessions: { expiry-max: 5 }\nlimits: { inflight: x }\nstate: y",
            "t.yaml:1:25: expiry-max has no unit; write: expiry-max: 5s, or another of ms, s, m, h, d",
            "t.yaml:2:21: inflight is a whole number, not \"x\"; write: inflight: 100",
            "t.yaml:3:8: state is a path that begins with /, not \"y\"; write: state: /var/lib/tidegate"),
    ]

    static let listeners = [
        Case(
            "listeners:\n  - address: 0.0.0.0:1883",
            "t.yaml:2:14: 0.0.0.0:1883 can be reached from other machines, and nothing asks clients who they are; "
                + "write: anonymous: true beside the address if anyone may connect, tls with require-certificate, "
                + "or 127.0.0.1:1883"),
        Case(
            "listeners:\n  - address: 0.0.0.0:1883\n    users: /etc/tidegate/users",
            "t.yaml:3:5: users is not offered by this version, a later one will; "
                + "write: a loopback address such as 127.0.0.1:1883, or anonymous: true"),
        Case(
            "listeners:\n  - address: 127.0.0.1:8083\n    protocol: websocket\n    tls: { key: a }",
            "t.yaml:4:10: tls needs a certificate; write: certificate: /etc/tidegate/gateway.pem",
            "t.yaml:4:17: key is a path that begins with /, not \"a\"; write: key: /etc/tidegate/key.pem"),
        Case(
            "listeners:\n  - address: 0.0.0.0:8883\n    tls: { certificate: /c, key: /k, require-certificate: true }",
            "t.yaml:3:59: nothing says whose certificates are believed; "
                + "write: client-ca: /etc/tidegate/devices.pem beside it"),
        Case(
            "listeners:\n  - address: unix:/a\n    tls: { certificate: /c, key: /k }",
            "t.yaml:2:14: a unix socket needs no TLS: nobody listens in; write: no tls, or a port"),
        Case(
            "listeners: []",
            "t.yaml:1:1: listeners is empty, and no sensor could connect; write: - address: 127.0.0.1:1883"),
        Case(
            "listeners: 127.0.0.1:1883",
            "t.yaml:1:12: listeners is a list, and this is a single value; write: - address: 127.0.0.1:1883"),
        Case(
            "listeners: [ { anonymous: true } ]",
            "t.yaml:1:14: a listener needs an address; write: address: 127.0.0.1:1883"),
        Case(
            "listeners: [ { address: \"sensors:1883\" } ]",
            "t.yaml:1:25: \"sensors\" is not an IP address to listen at; "
                + "write: an address such as 127.0.0.1:1883, [::1]:1883 or localhost:1883"),
        Case(
            "listeners: [ { address: \"::1:1883\" } ]",
            "t.yaml:1:25: \"::1:1883\" is not HOST:PORT; "
                + "write: an address such as 127.0.0.1:1883, [::1]:1883 or localhost:1883"),
        Case(
            "listeners: [ { address: 127.0.0.1 } ]",
            "t.yaml:1:25: \"127.0.0.1\" has no port; write: 127.0.0.1:1883, or another port up to 65535"),
        Case(
            "listeners: [ { address: \"[::1]:70000\" } ]",
            "t.yaml:1:25: \"70000\" is not a port; write: [::1]:1883, or another port up to 65535"),
        Case(
            "listeners: [ { address: \"localhost:1\" }, { address: \"127.0.0.1:1\" } ]",
            "t.yaml:1:53: another listener has this address already; write: each address once"),
        Case(
            "listeners: [ { address: \"unix:/a\" }, { address: \"unix:/a\", mode: 0600 } ]",
            "t.yaml:1:49: another listener has this address already; write: each address once"),
        Case(
            "listeners:\n  - address: unix:run/mqtt.sock",
            "t.yaml:2:14: \"run/mqtt.sock\" is not the path of a file that begins with /; "
                + "write: unix:/run/tidegate/mqtt.sock"),
        Case(
            "listeners:\n  - address: unix:/run/tidegate/",
            "t.yaml:2:14: \"/run/tidegate/\" is not the path of a file that begins with /; "
                + "write: unix:/run/tidegate/mqtt.sock"),
        Case(
            "listeners:\n  - address: unix:/\(String(repeating: "a", count: 107))",
            "t.yaml:2:14: the path of a unix socket has at most 107 bytes, and this has 108; "
                + "write: a shorter one, such as unix:/run/tidegate/mqtt.sock"),
        listener(
            "mode: 0660",
            "only a unix socket has a mode; write: address: unix:/run/tidegate/mqtt.sock, or no mode"),
        Case(
            "listeners: [ { address: \"unix:/a\", mode: rw-rw---- } ]",
            "t.yaml:1:42: mode is the permissions of a file in octal, such as 0660, not \"rw-rw----\"; "
                + "write: mode: 0660"),
        Case(
            "listeners: [ { address: \"unix:/a\", mode: 4755 } ]",
            "t.yaml:1:42: mode is the permissions of a file in octal, such as 0660, not \"4755\"; "
                + "write: mode: 0660"),
        listener("protocol: ws", "protocol is mqtt or websocket, not \"ws\"; write: protocol: websocket"),
        listener(
            "path: /mqtt",
            "only a WebSocket listener has a path; write: protocol: websocket beside it, or no path"),
        Case(
            "listeners: [ { address: \"unix:/a\", protocol: websocket, path: mqtt } ]",
            "t.yaml:1:63: path is a path that begins with /, not \"mqtt\"; write: path: /mqtt"),
        Case(
            "listeners: [ { address: \"unix:/a\", protocol: websocket, path: \"/a?b\" } ]",
            "t.yaml:1:63: \"/a?b\" is not the path of a URL: letters, digits and -._~/ are safe; "
                + "write: path: /mqtt"),
        listener(
            "max-connections: 0", "max-connections of 0 is out of bounds; write: a number from 1 to 1000000"),
        listener(
            "max-connections: 20000",
            "max-connections of 20000 is more than limits allows for all listeners together; "
                + "write: max-connections: 10000 or less, or more connections under limits"),
        listener(
            "packet-size: 2 MiB",
            "packet-size of 2 MiB is more than limits allows; "
                + "write: packet-size: 1 MiB or less, or a larger packet-size under limits"),
        Case(
            "listeners: [ { address: \"unix:/a\", packet-size: 4 KiB, max-connections: 5 } ]\n"
                + "limits: { packet-size: 2 KiB, connections: 4 }",
            "t.yaml:1:49: packet-size of 4 KiB is more than limits allows; "
                + "write: packet-size: 2 KiB or less, or a larger packet-size under limits",
            "t.yaml:1:73: max-connections of 5 is more than limits allows for all listeners together; "
                + "write: max-connections: 4 or less, or more connections under limits"),
        Case(
            "listeners: [ { address: \"unix:/a\", max-conections: 5 } ]",
            "t.yaml:1:36: unknown key \"max-conections\" in a listener; write: max-connections "
                + "(known here: address, protocol, path, mode, max-connections, packet-size, anonymous, tls)"),
    ]

    /// A listener with one bad setting.
    private static func listener(_ line: String, _ error: String) -> Case {
        let column = line.prefix { $0 != ":" }.count + 7
        return Case("listeners:\n  - address: 127.0.0.1:1\n    \(line)", "t.yaml:3:\(column): \(error)")
    }

    static let uplinks = [
        Case(
            "uplinks: [ {} ]",
            "t.yaml:1:12: an uplink needs a name; write: name: cloud",
            "t.yaml:1:12: an uplink needs an address; write: address: mqtt://broker.example.com:1883",
            "t.yaml:1:12: an uplink without routes carries nothing; write: routes: [ { out: \"sensors/#\" } ]"
        ),
        uplink(
            "address: mqtt://me:secret@h",
            "an address does not hold a user name or password; write: them under credentials:"),
        uplink(
            "address: h",
            "\"h\" is not an address; write: mqtts://broker.example.com, or with mqtt, ws or wss"),
        uplink(
            "address: mqtt://1.2.3",
            "\"mqtt://1.2.3\" is not mqtt://HOST:PORT; write: mqtts://broker.example.com, or with mqtt, ws or wss"
        ),
        uplink(
            "address: mqtts://h/mqtt",
            "\"mqtts://h/mqtt\" is not mqtts://HOST:PORT; write: mqtts://broker.example.com, or with mqtt, ws or wss"
        ),
        uplink(
            "address: wss://:9/mqtt",
            "\"wss://:9/mqtt\" is not wss://HOST:PORT/PATH; write: mqtts://broker.example.com, or with mqtt, ws or wss"
        ),
        uplink(
            "address: \"ws://h/a b\"",
            "\"/a b\" is not the path of a URL: letters, digits and -._~/?&= are safe; write: ws://h/mqtt"),
        uplink("address: mqtt://h:0", "\"0\" is not a port; write: a number from 1 to 65535"),
        Case(
            "uplinks: [ { name: c, addresses: [ mqtt://a, \"mqtt://a:1883\" ], routes: [ { out: a } ] } ]",
            "t.yaml:1:46: mqtt://a:1883 is already in the list; write: each address once"),
        Case(
            "uplinks: [ { name: c, addresses: [], routes: [ { out: a } ] } ]",
            "t.yaml:1:12: addresses names no address; write: address: mqtt://broker.example.com:1883"),
        Case(
            "uplinks: [ { name: c, addresses: [ mqtt://a, [ mqtt://b ] ], routes: [ { out: a } ] } ]",
            "t.yaml:1:46: an address is a single value, and this is a list; write: mqtt://broker.example.com:1883"
        ),
        setting(
            "fail-back: 10m",
            "with one address there is none to fail back to; write: more addresses, or no fail-back"),
        setting(
            "tls: { ca: /ca.pem }",
            "no address of this uplink uses TLS; write: mqtts://h or wss://h as the address, or no tls"),
        secure(
            "tls: { ca: ca.pem }",
            12, "ca is a path that begins with /, not \"ca.pem\"; write: ca: /etc/tidegate/cloud-ca.pem"),
        secure(
            "tls: { key: /k }",
            6,
            "certificate and key are of use only together; "
                + "write: certificate: /etc/tidegate/gateway.pem and key: /etc/tidegate/gateway.key"),
        secure("tls: { minimum: 1.1 }", 17, "minimum is 1.2 or 1.3, not \"1.1\"; write: minimum: 1.2"),
        secure(
            "tls: { server-name: \"a b\" }", 21,
            "\"a b\" is not a host's name; write: server-name: broker.example.com"),
        secure("tls: { alpn: [ \"\" ] }", 16, "alpn holds something that is not text; write: alpn: mqtt"),
        secure(
            "tls: { insecure: true }", 8,
            "unknown key \"insecure\" in tls; write: one of ca, certificate, key, server-name, alpn, minimum"),
        setting(
            "proxy: https://p:3128",
            "only a proxy spoken to by http:// is understood; it carries TLS inside; "
                + "write: proxy: http://proxy.example.com:3128"),
        setting(
            "proxy: proxy:3128", "the proxy is not an address; write: proxy: http://proxy.example.com:3128"),
        setting("proxy: http://me:secret@p", "the proxy has no port; write: proxy: http://p:3128"),
        setting(
            "proxy: http://me:100%@p:1",
            "the proxy's user name or password is not readable; "
                + "write: USER:PASSWORD with every special character as in a URL, a % as %25"),
        setting(
            "ack-timeout: 1s", "ack-timeout of 1s is out of bounds; write: a time from 5s to 1h, or never"),
        setting("ack-timeout: 5500ms", "ack-timeout is counted in whole seconds; write: ack-timeout: 60s"),
        setting(
            "topic-aliases: 70000", "topic-aliases of 70000 is out of bounds; write: a number from 0 to 65535"
        ),
        setting(
            "status: { online: \"1\" }",
            "status needs a topic; write: status: { topic: \"site/${gateway}/status\" }"),
        Case(
            "uplinks: [ { name: c, address: mqtt://h, status: { topic: \"a/#\" }, routes: [ { out: a } ] } ]",
            "t.yaml:1:59: \"a/#\" is not a topic: it has no + and no #; write: topic: \"site/${gateway}/status\""
        ),
        setting(
            "provenance: sequence",
            "provenance is true, false, or a list of gateway, seq and received-at, not \"sequence\"; "
                + "write: provenance: [ gateway, seq, received-at ]"),
        Case(
            "uplinks: [ { name: c, address: mqtt://h, version: 3.1.1, provenance: true, topic-aliases: 1, "
                + "routes: [ { out: a } ] } ]",
            "t.yaml:1:70: provenance is carried by User Properties, which MQTT 3.1.1 does not have; "
                + "write: version: 5, or no provenance",
            "t.yaml:1:91: MQTT 3.1.1 has no topic aliases; write: version: 5, or no topic-aliases"),
        drain(
            "messages: 500", "messages does not say for how long; write: messages: 500/s"),
        drain(
            "messages: 500/m", "messages is counted for each second, not \"500/m\"; write: messages: 500/s"),
        drain(
            "messages: many/s",
            "messages is a number for each second such as 500/s, not \"many/s\"; write: messages: 500/s"),
        drain("messages: 0/s", "messages of 0/s is out of bounds; write: a number from 1/s to 1000000/s"),
        drain("bytes: 64 KiB", "bytes does not say for how long; write: bytes: 64 KiB/s"),
        drain(
            "bytes: 64/s",
            "bytes is a size for each second such as 64 KiB/s, not \"64/s\"; write: bytes: 64 KiB/s"),
        setting(
            "dead-letters: 5",
            "dead-letters is a mapping of keys to values, and this is a single value; "
                + "write: dead-letters: { messages: 100000, bytes: 64 MiB }"),
        setting(
            "session-expiry: 0",
            "with a session-expiry of 0 the cloud would forget this gateway at every break of the link, and lose "
                + "what it still had to deliver; write: session-expiry: 7d"),
        setting("version: 4", "version is 5 or 3.1.1, not \"4\"; write: version: 5"),
        setting("keep-alive: 1s", "keep-alive of 1s is out of bounds; write: a time from 5s to 18h"),
        setting(
            "reconnect: { min: 2m }",
            "reconnect's min of 2m is longer than its max of 1m; write: max: 2m or longer"),
        setting(
            "credentials: { password: x }",
            "credentials need a username; write: "
                + "credentials: { username: plant-7, password-file: /etc/tidegate/cloud.password }"),
        Case(
            "uplinks: [ { name: c, address: mqtt://h, version: 3.1.1, session-expiry: 1d, routes: [ { out: a } ] } ]",
            "t.yaml:1:74: session-expiry cannot be asked for with version 3.1.1, where the cloud alone decides; "
                + "write: version: 5, or leave session-expiry out"),
        Case(
            "uplinks:\n- { name: c, address: mqtt://h, routes: [ { out: a } ] }\n"
                + "- { name: c, address: mqtt://i, routes: [ { out: a } ] }",
            "t.yaml:3:11: another uplink is called \"c\" already; "
                + "write: a name of its own: what waits for the cloud is kept under it"),
    ]

    /// An uplink with one bad address.
    private static func uplink(_ line: String, _ error: String) -> Case {
        Case("uplinks:\n  - name: c\n    \(line)\n    routes: [ { out: a } ]", "t.yaml:3:14: \(error)")
    }

    /// An uplink with one bad setting.
    private static func setting(_ line: String, _ error: String) -> Case {
        let column = line.prefix { $0 != ":" }.count + 7
        return Case(
            "uplinks:\n  - name: c\n    address: mqtt://h\n    routes: [ { out: a } ]\n    \(line)",
            "t.yaml:5:\(column): \(error)")
    }

    /// An uplink over TLS with one bad setting.
    private static func secure(_ line: String, _ column: Int, _ error: String) -> Case {
        Case(
            "uplinks:\n  - name: c\n    address: mqtts://h\n    routes: [ { out: a } ]\n    \(line)",
            "t.yaml:5:\(column + 4): \(error)")
    }

    /// An uplink with one bad rate.
    private static func drain(_ rate: String, _ error: String) -> Case {
        let column = rate.prefix { $0 != ":" }.count + 3
        return Case(
            "uplinks: [ { name: c, address: mqtt://h, routes: [ { out: a } ],\ndrain: { \(rate) } } ]",
            "t.yaml:2:\(column + 9): \(error)")
    }

    static let routes = [
        Case(
            "qos: 1",
            "t.yaml:3:1: a route has one of out, in and both; write: - { out: \"sensors/#\", to: \"site/${gateway}/sensors/#\" }"
        ),
        Case(
            "out: a, in: b",
            "t.yaml:3:1: a route has one of out, in and both; write: - { out: \"sensors/#\", to: \"site/${gateway}/sensors/#\" }"
        ),
        Case("out: a, qos: 3", "t.yaml:3:16: qos of 3 is out of bounds; write: a number from 0 to 2"),
        Case(
            "out: \"a#\"",
            "t.yaml:3:8: \"a#\" is not a topic filter: # stands alone and last, + stands alone in its level; "
                + "write: a filter such as \"sensors/#\" or \"sensors/+/temperature\""),
        Case(
            "out: \"a/#\", to: \"b/c\"",
            "t.yaml:3:19: only what stands before the first wildcard can change: from there on \"a/#\" and \"b/c\" "
                + "must be the same; write: to: \"b/c/#\""),
        Case(
            "out: \"a/+/b\", to: \"a/x/b\"",
            "t.yaml:3:21: only what stands before the first wildcard can change: from there on \"a/+/b\" and \"a/x/b\" "
                + "must be the same; write: to: \"a/x/b/+/b\""),
        Case(
            "out: \"$share/g/a\"",
            "t.yaml:3:8: a route cannot be a shared subscription; write: \"a\""),
        Case(
            "out: \"a/${clientid}/#\"",
            "t.yaml:3:8: \"${clientid}\" is not a variable known here; write: ${gateway}"),
        Case(
            "out: \"a/#\" }, { out: \"a/#\", to: \"b/#\"",
            "t.yaml:3:24: another route carries \"a/#\" already; write: each filter once"),
        Case(
            "both: \"a/#\" }, { in: \"a/#\", to: \"b/#\"",
            "t.yaml:3:24: another route carries \"a/#\" already; write: each filter once"),
        Case(
            "out: \"a/#\", except: [ \"b/#\" ]",
            "t.yaml:3:25: \"b/#\" excepts nothing: this route carries only \"a/#\"; "
                + "write: a filter that is part of \"a/#\""),
        Case(
            "out: \"a/#\", except: \"a#\"",
            "t.yaml:3:23: \"a#\" is not a topic filter: # stands alone and last, + stands alone in its level; "
                + "write: a filter such as \"sensors/raw/#\""),
        Case(
            "both: \"a/#\", to: \"b/#\", except: \"+/x\"",
            "t.yaml:3:35: what a route with both excepts begins as the route does, with \"a/\"; "
                + "write: \"a/…\", or one route with out and one with in"),
        Case(
            "out: a, priority: urgent",
            "t.yaml:3:21: priority is high, normal or low, not \"urgent\"; write: priority: high"),
        Case(
            "out: a, order: newest",
            "t.yaml:3:18: order is as-received or live-first, not \"newest\"; write: order: live-first"),
        Case(
            "in: a, priority: high",
            "t.yaml:3:20: priority is about what waits for the cloud, and this route comes from there; "
                + "write: priority at a route with out"),
        Case(
            "out: a, queue: { when-full: refuse }",
            "t.yaml:3:18: queue has no bound; write: queue: { messages: 10000, when-full: drop-oldest }"),
        Case(
            "out: a, queue: { messages: 1, when-full: drop }",
            "t.yaml:3:44: when-full is refuse, drop-oldest or drop-newest, not \"drop\"; "
                + "write: when-full: drop-oldest"),
        Case(
            "out: l, order: live-first }, "
                + (1...7).map { "{ out: r\($0), queue: { messages: 5 } }" }.joined(separator: ", ")
                + ", { out: z",
            "t.yaml:2:43: priorities, live-first and queues of their own make 8 further queues of these routes, and an "
                + "uplink has at most 7; write: fewer routes with a queue of their own, or a second uplink"),
    ]
}

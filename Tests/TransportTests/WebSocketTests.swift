import MQTT
import NIOCore
import Testing

@testable import Transport

private let webSocket = Framing.webSocket(paths: ["/mqtt", "/"])

@Suite("Transport: opening a WebSocket", .serialized)
struct WebSocketOpeningTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var request: String
        var answer: String
        var field: String?

        init(_ description: String, _ request: String, _ answer: String, _ field: String? = nil) {
            testDescription = description
            self.request = request
            self.answer = answer
            self.field = field
        }
    }

    @Test(
        "a request that cannot be granted gets the status that says why, and then the end",
        arguments: refusals)
    func refused(_ c: Case) throws {
        let bench = try Bench(framing: webSocket)
        let client = try RawClient(port: bench.port)
        try client.sends(Array(c.request.utf8))
        let answer = String(decoding: try #require(client.receivesToEnd()), as: UTF8.self)
        #expect(answer.hasPrefix("HTTP/1.1 \(c.answer)\r\n"), "\(answer)")
        let lines = answer.split(separator: "\r\n")
        if let field = c.field { #expect(lines.contains { $0 == field }, "\(answer)") }
        #expect(lines.contains { $0.hasPrefix("Connection:") && $0.hasSuffix("close") })
        client.halfCloses()
        try bench.waits { try bench.told().last == .closed }
        #expect(try bench.told() == [.opened(listener: 7), .closed])
    }

    static let refusals = [
        Case("path", WebSocketClient.request("GET /mqttx HTTP/1.1"), "404 Not Found"),
        Case("path before anything else", "GET /favicon.ico HTTP/1.1\r\nHost: g\r\n\r\n", "404 Not Found"),
        Case(
            "method", WebSocketClient.request("POST /mqtt HTTP/1.1"), "405 Method Not Allowed", "Allow: GET"),
        Case("HTTP/1.0", WebSocketClient.request("GET /mqtt HTTP/1.0"), "400 Bad Request"),
        Case("no host", WebSocketClient.request(without: "Host"), "400 Bad Request"),
        Case("not HTTP", "\u{10}\u{0C}\u{0}\u{4}MQTT\u{4}\u{2}\u{0}<\u{0}\u{0}", "400 Bad Request"),
        Case("a body", WebSocketClient.request(adding: ["Content-Length: 3"]) + "abc", "400 Bad Request"),
        Case(
            "a browser's visit", "GET / HTTP/1.1\r\nHost: g\r\n\r\n", "426 Upgrade Required",
            "Upgrade: websocket"),
        Case(
            "another protocol", WebSocketClient.request(without: "Upgrade", adding: ["Upgrade: h2c"]),
            "426 Upgrade Required"),
        Case(
            "no Connection: Upgrade", WebSocketClient.request(without: "Connection"), "426 Upgrade Required"),
        Case(
            "another version",
            WebSocketClient.request(without: "Sec-WebSocket-Version", adding: ["Sec-WebSocket-Version: 8"]),
            "426 Upgrade Required", "Sec-WebSocket-Version: 13"),
        Case("no key", WebSocketClient.request(without: "Sec-WebSocket-Key"), "400 Bad Request"),
        Case(
            "a short key",
            WebSocketClient.request(without: "Sec-WebSocket-Key", adding: ["Sec-WebSocket-Key: abc="]),
            "400 Bad Request"),
        Case(
            "two keys", WebSocketClient.request(adding: ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]),
            "400 Bad Request"),
        Case("[MQTT5-6.0.0-3] no subprotocol", WebSocketClient.request(subprotocol: nil), "400 Bad Request"),
        Case(
            "[MQTT5-6.0.0-3] other subprotocols", WebSocketClient.request(subprotocol: "chat, MQTT"),
            "400 Bad Request"),
        Case(
            "a head without end",
            WebSocketClient.request(adding: ["X: " + String(repeating: "a", count: 9000)]),
            "431 Request Header Fields Too Large"),
        Case(
            "a long path",
            WebSocketClient.request("GET /" + String(repeating: "a", count: 9000) + " HTTP/1.1"),
            "431 Request Header Fields Too Large"),
        Case(
            "many fields", WebSocketClient.request(adding: (0..<70).map { "X-\($0): a" }),
            "431 Request Header Fields Too Large"),
    ]

    @Test(
        "[MQTT5-6.0.0-4, MQTT311-6.0.0-4] the subprotocol granted is the first one asked for that is known here",
        arguments: [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("chat, mqttv3.1,mqtt", "mqttv3.1")])
    func subprotocols(asked: String, granted: String) throws {
        let bench = try Bench(framing: webSocket)
        let client = try RawClient(port: bench.port)
        try client.sends(Array(WebSocketClient.request("GET /?token=1 HTTP/1.1", subprotocol: asked).utf8))
        let answer = String(decoding: try #require(client.receivesOnce()), as: UTF8.self)
        #expect(answer.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n"))
        #expect(answer.split(separator: "\r\n").contains("Sec-WebSocket-Protocol: \(granted)"))
    }

    @Test(
        "on loopback a browser is let in with pages from this machine only",
        arguments: [
            ("http://localhost:3000", true), ("https://127.0.0.1", true), ("http://[::1]:80", true),
            ("HTTP://LocalHost", true), ("http://evil.example", false), ("http://127.evil.example", false),
            ("http://localhost.evil.example", false), ("null", false), ("http://[::1].evil.example", false),
            ("http:localhost", false), ("", false),
        ])
    func origins(origin: String, isGranted: Bool) throws {
        let request = WebSocketClient.request(adding: ["Origin: \(origin)"])
        for localPagesOnly in [true, false] {
            let bench = try Bench(framing: .webSocket(paths: ["/mqtt"], localPagesOnly: localPagesOnly))
            let client = try RawClient(port: bench.port)
            try client.sends(Array(request.utf8))
            let answer = String(decoding: try #require(client.receivesOnce()), as: UTF8.self)
            let status = isGranted || !localPagesOnly ? "101 Switching Protocols" : "403 Forbidden"
            #expect(answer.hasPrefix("HTTP/1.1 \(status)\r\n"), "\(answer)")
        }
    }

    @Test("a request that comes byte by byte is granted, and frames right behind it are not lost")
    func slowAndEager() throws {
        let bench = try Bench(framing: webSocket)
        let slow = try RawClient(port: bench.port)
        for byte in WebSocketClient.request().utf8 { try slow.sends([byte]) }
        let eager = WebSocketClient.bytes(2, Packet.hello().bytes(.v5_0))
        let client = try WebSocketClient(RawClient(port: bench.port), eager: eager)
        try bench.waits { try bench.received(1) == [.hello()] }
        #expect(String(decoding: try #require(slow.receivesOnce()), as: UTF8.self).hasPrefix("HTTP/1.1 101"))
        withExtendedLifetime(client) {}
    }

    @Test("a client counts from accept on, and one that never asks is closed by the host's time with 408")
    func silent() throws {
        let bench = try Bench(framing: webSocket, connectionsMax: 1)
        let client = try RawClient(port: bench.port)
        try client.sends(Array("GET /mqtt HTTP/1.1\r\nHost:".utf8))
        try bench.waits { try bench.told() == [.opened(listener: 7)] }
        #expect(try RawClient(port: bench.port).receivesToEnd() == [])
        try bench.onLoop { loop in
            // Not yet: the client would take it for an answer to its request.
            loop.transport.send(loop.recorder.numbers[0], .pingresp)
            loop.transport.close(loop.recorder.numbers[0])
        }
        let answer = String(decoding: try #require(client.receivesToEnd()), as: UTF8.self)
        #expect(answer.hasPrefix("HTTP/1.1 408 Request Timeout\r\n"))
        #expect(answer.hasSuffix("\r\n\r\nThe request took too long.\n"))
    }
}

@Suite("Transport: MQTT in WebSocket frames", .serialized)
struct WebSocketFramingTests {
    @Test("[MQTT5-6.0.0-2, MQTT311-6.0.0-2] packets span frames, fragments and segments, and share them")
    func cuts() throws {
        let bench = try Bench(framing: webSocket)
        let client = try WebSocketClient(RawClient(port: bench.port))
        let packets: [Packet] = [
            .hello(), .numbered(1, padding: 300), .pingreq, .numbered(2, padding: 70_000),
        ]
        let bytes = packets.flatMap { $0.bytes(.v5_0) }
        // Three fragments of one message, the middle one empty, with a Ping between them.
        try client.sends(2, Array(bytes[..<5]), isFinal: false)
        try client.sends(0, [], isFinal: false)
        try client.sends(9, [1, 2, 3])
        try client.sends(0, Array(bytes[5..<40]))
        // One frame a byte, then one in two segments, then the rest in one that also ends a packet.
        for byte in bytes[40..<60] { try client.sends(2, [byte]) }
        let frame = WebSocketClient.bytes(2, Array(bytes[60..<400]))
        try client.socket.sends(Array(frame[..<7]))
        usleepMilliseconds(20)
        try client.socket.sends(Array(frame[7...]))
        try client.sends(2, Array(bytes[400...]) + Packet.numbered(3).bytes(.v5_0))
        try bench.waits { try bench.received().count == 5 }
        #expect(try bench.received() == packets + [.numbered(3)])
        #expect(try client.receives() == .pong([1, 2, 3]))
    }

    @Test(
        "[MQTT5-6.0.0-1, MQTT311-6.0.0-1] what is sent leaves in binary frames, one for what is written together"
    )
    func frames() throws {
        let bench = try Bench(framing: webSocket)
        let client = try WebSocketClient(RawClient(port: bench.port))
        try client.sends([.hello()])
        try bench.waits { try bench.received().count == 1 }
        for padding in [10, 200, 66_000] {
            try bench.onLoop { loop in
                loop.transport.send(loop.recorder.numbers[0], .pingresp)
                loop.transport.send(loop.recorder.numbers[0], .numbered(1, padding: padding))
            }
            let whole = [0xD0, 0x00] + Packet.numbered(1, padding: padding).bytes(.v5_0)
            #expect(try client.receives() == .binary(whole))
        }
    }

    struct Breach: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var bytes: [UInt8]
        var code: UInt16
    }

    @Test("a client that breaks a rule is told which kind, and closed", arguments: breaches)
    func broken(_ breach: Breach) throws {
        let bench = try Bench(framing: webSocket, maximumPacketSize: 1000)
        let client = try WebSocketClient(RawClient(port: bench.port))
        try client.sends([.hello()])
        try client.socket.sends(breach.bytes)
        // Still on its way when the client is closed, and never seen by the host.
        try client.sends([.numbered(1)])
        #expect(try client.receives() == .close(breach.code))
        #expect(client.seesEnd())
        client.socket.halfCloses()
        try bench.waits { try bench.told().last == .closed }
        #expect(try bench.told() == [.opened(listener: 7), .received(.hello()), .closed])
    }

    static let breaches = [
        Breach(testDescription: "[MQTT5-6.0.0-1] text", bytes: WebSocketClient.bytes(1, [0x61]), code: 1003),
        Breach(
            testDescription: "no mask", bytes: WebSocketClient.bytes(2, [0xC0, 0], mask: nil), code: 1002),
        Breach(
            testDescription: "reserved bit", bytes: WebSocketClient.bytes(2, [0xC0, 0], reserved: 4),
            code: 1002),
        Breach(testDescription: "unknown opcode", bytes: WebSocketClient.bytes(3, []), code: 1002),
        Breach(testDescription: "continues nothing", bytes: WebSocketClient.bytes(0, [0xC0, 0]), code: 1002),
        Breach(
            testDescription: "begins within a message",
            bytes: WebSocketClient.bytes(2, [], isFinal: false) + WebSocketClient.bytes(2, []), code: 1002),
        Breach(
            testDescription: "fragmented Ping", bytes: WebSocketClient.bytes(9, [], isFinal: false),
            code: 1002),
        Breach(
            testDescription: "long Ping", bytes: WebSocketClient.bytes(9, Array(repeating: 0, count: 126)),
            code: 1002),
        Breach(
            testDescription: "frame over the bound, told by its header alone",
            bytes: [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], code: 1009),
        Breach(
            testDescription: "frame of 2^63 bytes",
            bytes: [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], code: 1009),
    ]

    @Test(
        "a client's Close is answered with its code, and the end follows",
        arguments: [nil, 1000, 1001, 4000, 999, 1005] as [UInt16?])
    func closedByClient(code: UInt16?) throws {
        let bench = try Bench(framing: webSocket)
        let client = try WebSocketClient(RawClient(port: bench.port))
        try client.sends([.hello(), .numbered(1)])
        try client.sends(8, WebSocketClient.Frame.close(code).payload)
        let isLegal = code.map { $0 != 999 && $0 != 1005 } ?? true
        #expect(try client.receives() == .close(isLegal ? code : 1002))
        #expect(client.seesEnd())
        try bench.waits { try bench.told().last == .closed }
        #expect(try bench.received() == [.hello(), .numbered(1)])
    }

    @Test("what a paused client sent before its Close is told before its end")
    func pausedThenClosed() throws {
        let bench = try Bench(framing: webSocket) { loop, number, told in
            if case .received(.connect) = told { loop.transport.reading(number, false) }
        }
        let client = try WebSocketClient(RawClient(port: bench.port))
        try client.socket.sends(
            WebSocketClient.bytes(2, [Packet.hello(), .numbered(1)].flatMap { $0.bytes(.v5_0) })
                + WebSocketClient.bytes(8, []))
        #expect(try client.receives() == .close(nil))
        try bench.waits { try bench.told().last == .closed }
        #expect(try bench.received() == [.hello(), .numbered(1)])
    }

    @Test("closed by the host, a client gets its last packet, a Close and the end")
    func closedByHost() throws {
        let bench = try Bench(framing: webSocket) { loop, number, told in
            guard case .malformed(let error) = told else { return }
            loop.transport.send(number, .disconnect(Disconnect(error.reasonCode)))
            loop.transport.close(number)
        }
        let client = try WebSocketClient(RawClient(port: bench.port))
        try client.sends([.hello()])
        try client.sends(2, [0x00, 0x00])
        try client.sends((0..<1000).map { .numbered($0, padding: 50) })
        #expect(
            try client.receives() == .binary(Packet.disconnect(Disconnect(.malformedPacket)).bytes(.v5_0)))
        #expect(try client.receives() == .close(1000))
        try client.sends(8, WebSocketClient.Frame.close(1000).payload)
        #expect(client.seesEnd())
        let before = NIODeadline.now()
        try bench.waits { try bench.told().last == .closed }
        #expect(NIODeadline.now() - before < .seconds(2))
    }

    @Test("a client is paused and resumed as over TCP, and nothing is lost or out of order")
    func pauseAndResume() throws {
        let bench = try Bench(framing: webSocket) { loop, number, told in
            if told == .received(.numbered(10, padding: 100)) { loop.transport.reading(number, false) }
        }
        let client = try WebSocketClient(RawClient(port: bench.port))
        let packets: [Packet] = [.hello()] + (0..<400).map { .numbered($0, padding: 100) }
        for packet in packets { try client.sends([packet]) }
        try bench.waits { try bench.received().last == Packet.numbered(10, padding: 100) }
        usleepMilliseconds(50)
        #expect(try bench.received().count == 12)
        try bench.onLoop { $0.transport.reading($0.recorder.numbers[0], true) }
        try bench.waits { try bench.received().count == packets.count }
        #expect(try bench.received() == packets)
    }

    @Test("a client that does not read is cut after the stall timeout, whatever it sends meanwhile")
    func stall() throws {
        let bench = try Bench(
            framing: webSocket,
            answer: { loop, number, told in
                if told == .received(.pingreq) { loop.transport.send(number, .pingresp) }
            }, tune: { $0.stallTimeout = .seconds(2) })
        let client = try WebSocketClient(RawClient(port: bench.port, receiveBuffer: 4096))
        try client.sends([.hello()])
        try bench.waits { try bench.received().count == 1 }
        try bench.onLoop { loop in
            for number in 0..<80 {
                loop.transport.send(loop.recorder.numbers[0], .numbered(number, padding: 40_000))
            }
        }
        try bench.waits { try bench.told().contains(.writability(false)) }
        // Each is answered, and so were the Pings if they were not held back while nothing is read.
        for _ in 0..<100 {
            if try bench.told().last == .closed { break }
            do {
                try client.socket.sends(WebSocketClient.bytes(9, [1]) + WebSocketClient.bytes(2, [0xC0, 0]))
            } catch { break }
            usleepMilliseconds(50)
        }
        #expect(try bench.told().last == .closed)
        guard case .cutForNotReading? = try bench.onLoop({ $0.recorder.troubles.first }) else {
            Issue.record("it was not cut")
            return
        }
    }
}

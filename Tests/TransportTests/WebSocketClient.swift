import Foundation
import MQTT
import Testing

/// The client's side of RFC 6455 over a blocking socket; every frame is as a test says, right or wrong.
final class WebSocketClient {
    struct Frame: Equatable {
        var opcode: UInt8
        var payload: [UInt8]
        var isFinal = true

        static func binary(_ payload: [UInt8]) -> Frame { Frame(opcode: 2, payload: payload) }
        static func close(_ code: UInt16?) -> Frame {
            Frame(opcode: 8, payload: code.map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] } ?? [])
        }
        static func pong(_ payload: [UInt8]) -> Frame { Frame(opcode: 10, payload: payload) }
    }

    let socket: RawClient
    private var unread: [UInt8] = []

    /// Opens with the example key of RFC 6455, 1.3, and checks the answer that the RFC works out there.
    init(_ socket: RawClient, subprotocol: String = "mqtt", eager: [UInt8] = []) throws {
        self.socket = socket
        try socket.sends(Array(Self.request(subprotocol: subprotocol).utf8) + eager)
        let head = try readHead()
        try #require(head.hasPrefix("HTTP/1.1 101 "))
        let lines = head.lowercased().split(separator: "\r\n")
        #expect(lines.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="))
        #expect(lines.contains("sec-websocket-protocol: \(subprotocol)"))
        #expect(lines.contains("upgrade: websocket") && lines.contains("connection: upgrade"))
    }

    /// A good request; each part can be made bad.
    static func request(
        _ line: String = "GET /mqtt HTTP/1.1", without missing: String? = nil, subprotocol: String? = "mqtt",
        adding fields: [String] = []
    ) -> String {
        var lines = [
            "Host: gateway", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        ]
        if let subprotocol { lines.append("Sec-WebSocket-Protocol: \(subprotocol)") }
        if let missing { lines.removeAll { $0.hasPrefix(missing) } }
        return ([line] + lines + fields).map { $0 + "\r\n" }.joined() + "\r\n"
    }

    private func readHead() throws -> String {
        while true {
            let text = String(decoding: unread, as: UTF8.self)
            if let end = text.range(of: "\r\n\r\n") {
                unread.removeFirst(text[..<end.upperBound].utf8.count)
                return String(text[..<end.upperBound])
            }
            try readMore()
        }
    }

    private func readMore() throws {
        let bytes = try #require(socket.receivesOnce())
        try #require(!bytes.isEmpty)
        unread += bytes
    }

    static func bytes(
        _ opcode: UInt8, _ payload: [UInt8], isFinal: Bool = true, mask: [UInt8]? = [0x37, 0xFA, 0x21, 0x3D],
        reserved: UInt8 = 0
    ) -> [UInt8] {
        var bytes = [(isFinal ? 0x80 : 0) | reserved << 4 | opcode]
        let bit: UInt8 = mask == nil ? 0 : 0x80
        switch payload.count {
        case ..<126: bytes.append(bit | UInt8(payload.count))
        case ...0xFFFF: bytes += [bit | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
        default: bytes += [bit | 127] + (0..<8).map { UInt8(payload.count >> (56 - 8 * $0) & 0xFF) }
        }
        guard let mask else { return bytes + payload }
        return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 % 4] }
    }

    func sends(_ opcode: UInt8, _ payload: [UInt8], isFinal: Bool = true) throws {
        try socket.sends(Self.bytes(opcode, payload, isFinal: isFinal))
    }

    func sends(_ packets: [Packet]) throws { try sends(2, packets.flatMap { $0.bytes(.v5_0) }) }

    /// The next frame; a server's never has a mask.
    func receives() throws -> Frame {
        while true {
            if let frame = try parse() { return frame }
            try readMore()
        }
    }

    private func parse() throws -> Frame? {
        guard unread.count >= 2 else { return nil }
        try #require(unread[1] & 0x80 == 0 && unread[0] & 0x70 == 0)
        var start = 2
        var length = Int(unread[1])
        if length > 125 {
            start += length == 126 ? 2 : 8
            guard unread.count >= start else { return nil }
            length = unread[2..<start].reduce(0) { $0 << 8 | Int($1) }
        }
        guard unread.count >= start + length else { return nil }
        defer { unread.removeFirst(start + length) }
        return Frame(
            opcode: unread[0] & 0x0F, payload: Array(unread[start..<start + length]),
            isFinal: unread[0] & 0x80 != 0)
    }

    /// Nothing but the end of the stream comes.
    func seesEnd() -> Bool { unread.isEmpty && socket.receivesToEnd() == [] }
}

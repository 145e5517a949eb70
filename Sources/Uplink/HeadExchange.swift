import NIOCore
import NIOHTTP1
import NIOWebSocket

/// One HTTP request without a body, and the head of its answer: how a tunnel is asked of a proxy, and a
/// WebSocket of a server. Afterwards it takes itself out of the pipeline.
final class HeadExchange: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Fired when the answer is what it has to be; bytes behind it follow as if nothing had been before them.
    struct Succeeded: Sendable {}

    private let request: HeadRequest
    private var answer = ByteBuffer()
    private var isOver = false

    /// What an answer's head may take, in bytes.
    static let answerBytesMax = 16_384

    init(_ request: HeadRequest) {
        self.request = request
    }

    func handlerAdded(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: request.head)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isOver else { return context.fireChannelRead(data) }
        var bytes = unwrapInboundIn(data)
        answer.writeBuffer(&bytes)
        let view = answer.readableBytesView
        guard let end = Self.end(of: view) else {
            if view.count > Self.answerBytesMax { refuse("its answer has no end", context) }
            return
        }
        guard let head = HTTPResponseHead(text: String(decoding: view[..<end], as: UTF8.self)) else {
            return refuse("what it answers is not HTTP", context)
        }
        if let fault = request.fault(in: head) { return refuse(fault, context) }
        isOver = true
        answer.moveReaderIndex(to: end)
        let rest = answer.slice()
        answer = ByteBuffer()
        context.fireUserInboundEventTriggered(Succeeded())
        if rest.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(rest)) }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    private func refuse(_ fault: String, _ context: ChannelHandlerContext) {
        isOver = true
        context.fireErrorCaught(LinkLossError(loss: request.loss(fault)))
        context.close(promise: nil)
    }

    /// Behind the empty line; nil when it has not come yet.
    private static func end(of view: ByteBufferView) -> Int? {
        let mark: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A]
        guard view.count >= mark.count else { return nil }
        return (view.startIndex...view.endIndex - mark.count)
            .first { view[$0..<$0 + mark.count].elementsEqual(mark) }.map { $0 + mark.count }
    }
}

/// What is asked for by a `HeadExchange`.
enum HeadRequest {
    /// A tunnel through an HTTP proxy, which looks up the name itself (RFC 9110, 9.3.6).
    case tunnel(to: UplinkAddress, UplinkProxy)
    /// A WebSocket with the subprotocol of MQTT [MQTT5-6.0.0-3]; the key is random (RFC 6455, 4.1).
    case webSocket(UplinkAddress, key: String)

    /// The subprotocol of MQTT 3.1.1 and 5.
    static let subprotocol = "mqtt"

    var head: String {
        switch self {
        case .tunnel(let address, let proxy):
            var lines = ["CONNECT \(address.authority) HTTP/1.1", "Host: \(address.authority)"]
            if let userName = proxy.userName {
                let words = Base64.encoded(Array("\(userName):\(proxy.password ?? "")".utf8))
                lines.append("Proxy-Authorization: Basic \(words)")
            }
            return lines.joined(separator: "\r\n") + "\r\n\r\n"
        case .webSocket(let address, let key):
            return [
                "GET \(address.path) HTTP/1.1", "Host: \(address.authority)", "Upgrade: websocket",
                "Connection: Upgrade", "Sec-WebSocket-Key: \(key)", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Protocol: \(Self.subprotocol)",
            ].joined(separator: "\r\n") + "\r\n\r\n"
        }
    }

    /// What is wrong with an answer; nil when it grants what was asked for.
    func fault(in head: HTTPResponseHead) -> String? {
        switch self {
        case .tunnel:
            switch head.status.code {
            case 200..<300: return nil
            case 407: return "it wants another user name or password (407)"
            case let code: return "it answers \(code) \(head.status.reasonPhrase)"
            }
        case .webSocket(_, let key):
            guard head.status == .switchingProtocols else {
                return "it answers \(head.status.code) \(head.status.reasonPhrase)"
            }
            let upgrader = NIOWebSocketClientUpgrader(requestKey: key) { channel, _ in
                channel.eventLoop.makeSucceededVoidFuture()
            }
            guard head.headers[canonicalForm: "upgrade"].contains(where: { $0.lowercased() == "websocket" }),
                upgrader.shouldAllowUpgrade(upgradeResponse: head),
                head.headers["sec-websocket-extensions"].isEmpty
            else { return "its answer is not that of a WebSocket" }
            guard head.headers["sec-websocket-protocol"] == [Self.subprotocol] else {
                return "it does not agree to the subprotocol mqtt"
            }
            return nil
        }
    }

    func loss(_ fault: String) -> LinkLoss {
        switch self {
        case .tunnel: .proxyRefused(fault)
        case .webSocket: .webSocketRefused(fault)
        }
    }
}

extension UplinkAddress {
    /// Host and port as HTTP writes them.
    fileprivate var authority: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}

extension HTTPResponseHead {
    /// Reads a status line and header fields; nil when they are none.
    fileprivate init?(text: String) {
        var lines = text.utf8.split(separator: 0x0A, omittingEmptySubsequences: false)
            .map { Substring($0.last == 0x0D ? $0.dropLast() : $0) }[...]
        guard let status = lines.popFirst()?.split(separator: " ", maxSplits: 2), status.count >= 2,
            ["HTTP/1.1", "HTTP/1.0"].contains(status[0]), let code = Int(status[1]),
            (100...599).contains(code)
        else { return nil }
        var headers = HTTPHeaders()
        for line in lines where !line.isEmpty {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty else { return nil }
            headers.add(name: String(parts[0]), value: String(parts[1].trimmed))
        }
        let phrase = status.count > 2 ? String(status[2]) : ""
        self.init(
            version: .http1_1, status: HTTPResponseStatus(statusCode: code, reasonPhrase: phrase),
            headers: headers)
    }
}

extension Substring {
    fileprivate var trimmed: Substring {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" }
        let start = self.drop(while: isBlank)
        return start.lastIndex { !isBlank($0) }.map { start[...$0] } ?? ""
    }
}

/// RFC 4648, 4.
private enum Base64 {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encoded(_ bytes: [UInt8]) -> String {
        var result: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let part = bytes[start..<min(start + 3, bytes.count)]
            let bits = part.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - part.count))
            for n in 0..<4 {
                result.append(n <= part.count ? digits[bits >> (18 - 6 * n) & 0x3F] : UInt8(ascii: "="))
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

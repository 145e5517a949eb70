import NIOCore
import NIOHTTP1
import NIOWebSocket

/// The HTTP part of a WebSocket connection: reads the one request that opens it, answers, and gives way to
/// `WebSocketFraming`.
///
/// The connection's own handler stands behind it from the start, so that a client counts, and its time to send
/// CONNECT runs, from the moment it was accepted.
final class WebSocketOpening: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = HTTPServerResponsePart

    private enum Phase {
        case reading
        /// The request was good; it is answered once its end is seen, where frames may begin.
        case accepted(HTTPRequestHead, OpeningRequest)
        /// Answered.
        case over
    }

    private let paths: [String]
    private let localPagesOnly: Bool
    private let frameBytesMax: Int
    private var phase = Phase.reading
    private let encoder = HTTPResponseEncoder()
    private let decoder: ByteToMessageHandler<HTTPRequestDecoder>

    /// - Parameter paths: the request targets that are answered, without query.
    init(paths: [String], localPagesOnly: Bool, maximumPacketSize: Int) {
        self.paths = paths
        self.localPagesOnly = localPagesOnly
        self.frameBytesMax = max(maximumPacketSize, Limits.frameBytesMin)
        decoder = ByteToMessageHandler(
            HTTPRequestDecoder(
                leftOverBytesStrategy: .forwardBytes, informationalResponseStrategy: .drop,
                limitConfiguration: Limits.requestHead))
    }

    /// Puts itself and what it needs at the end of a new channel's pipeline.
    func install(_ pipeline: ChannelPipeline.SynchronousOperations) throws {
        try pipeline.addHandlers([encoder, decoder, self])
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (unwrapInboundIn(data), phase) {
        case (.head(let head), .reading):
            do throws(OpeningRefusal) {
                let request = try OpeningRequest(head, paths: paths, localPagesOnly: localPagesOnly)
                phase = .accepted(head, request)
            } catch {
                refuse(error, context)
            }
        case (.end, .accepted(let head, let request)):
            phase = .over
            accept(head, request, context)
        case (.head, _), (.body, _), (.end, _):
            // A second request, or the body of a refused one.
            return
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case HTTPParserError.headerOverflow: refuse(.headTooLarge, context)
        case is HTTPParserError: refuse(.malformed, context)
        default: context.fireErrorCaught(error)
        }
    }

    /// Nothing of MQTT can be sent before the connection is one.
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    /// The gateway closes the connection before it is one: the request took too long, or the gateway stops.
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output, case .reading = phase {
            phase = .over
            answer(.tooLate, context)
        }
        context.close(mode: mode, promise: promise)
    }

    private func refuse(_ refusal: OpeningRefusal, _ context: ChannelHandlerContext) {
        if case .over = phase { return }
        phase = .over
        answer(refusal, context)
        context.fireUserInboundEventTriggered(FramingEnded())
    }

    private func answer(_ refusal: OpeningRefusal, _ context: ChannelHandlerContext) {
        let text = context.channel.allocator.buffer(string: refusal.text + "\n")
        var headers = refusal.headers
        headers.add(name: "Content-Type", value: "text/plain; charset=utf-8")
        headers.add(name: "Content-Length", value: "\(text.readableBytes)")
        headers.add(
            name: "Connection", value: refusal.status == .upgradeRequired ? "upgrade, close" : "close")
        let head = HTTPResponseHead(version: .http1_1, status: refusal.status, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(text))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    private func accept(_ head: HTTPRequestHead, _ request: OpeningRequest, _ context: ChannelHandlerContext)
    {
        let subprotocol = HTTPHeaders([("Sec-WebSocket-Protocol", request.subprotocol)])
        let upgrader = NIOWebSocketServerUpgrader(
            shouldUpgrade: { channel, _ in channel.eventLoop.makeSucceededFuture(subprotocol) },
            upgradePipelineHandler: { channel, _ in channel.eventLoop.makeSucceededVoidFuture() })
        upgrader.buildUpgradeResponse(
            channel: context.channel, upgradeRequest: head, initialResponseHeaders: [:]
        ).assumeIsolated().whenComplete { result in
            do {
                let head = HTTPResponseHead(
                    version: .http1_1, status: .switchingProtocols, headers: try result.get())
                context.write(self.wrapOutboundOut(.head(head)), promise: nil)
                context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
                try self.giveWay(context)
            } catch {
                context.close(promise: nil)
            }
        }
    }

    /// Puts the frames' handlers in the place of HTTP's. What the client sent behind its request comes out of
    /// HTTP's decoder when that leaves, last of all, and goes to theirs.
    private func giveWay(_ context: ChannelHandlerContext) throws {
        let pipeline = context.pipeline.syncOperations
        try pipeline.addHandlers(
            [
                WebSocketFrameEncoder(),
                ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: frameBytesMax)),
                WebSocketFraming(),
            ], position: .after(self))
        pipeline.removeHandler(encoder, promise: nil)
        pipeline.removeHandler(context: context, promise: nil)
        pipeline.removeHandler(decoder, promise: nil)
    }
}

/// Told to the connection's handler when what carries it ended it: close after what was sent.
struct FramingEnded {}

/// A request to open a WebSocket that can be granted (RFC 6455, 4.2.1).
struct OpeningRequest: Equatable {
    /// The client's choice among those known here [MQTT5-6.0.0-3], [MQTT5-6.0.0-4].
    let subprotocol: String

    /// `mqtt` is of MQTT 3.1.1 and 5, `mqttv3.1` of clients from before there was a standard.
    static let subprotocols = ["mqtt", "mqttv3.1"]

    /// - Throws: what is answered instead.
    init(_ head: HTTPRequestHead, paths: [String], localPagesOnly: Bool) throws(OpeningRefusal) {
        let target = head.uri.prefix { $0 != "?" }
        guard paths.contains(where: { $0 == target }) else { throw .unknownPath }
        guard head.method == .GET else { throw .wrongMethod }
        guard head.version.minor >= 1, head.headers["Host"].count == 1,
            !head.headers.contains(name: "Content-Length"),
            !head.headers.contains(name: "Transfer-Encoding")
        else { throw .malformed }
        guard Self.holds("websocket", head.headers[canonicalForm: "Upgrade"]),
            Self.holds("upgrade", head.headers[canonicalForm: "Connection"]),
            head.headers["Sec-WebSocket-Version"] == ["13"]
        else { throw .noUpgrade }
        guard let key = head.headers["Sec-WebSocket-Key"].first,
            head.headers["Sec-WebSocket-Key"].count == 1, Self.isKey(key)
        else { throw .malformed }
        if localPagesOnly, !head.headers["Origin"].allSatisfy(Self.isLocal) { throw .foreignPage }
        let offered = head.headers[canonicalForm: "Sec-WebSocket-Protocol"]
        guard let chosen = offered.first(where: { Self.subprotocols.contains(String($0)) }) else {
            throw .unknownSubprotocol
        }
        subprotocol = String(chosen)
    }

    private static func holds(_ token: String, _ values: [Substring]) -> Bool {
        values.contains { $0.lowercased() == token }
    }

    /// Whether an Origin is a page of this machine. A name is never looked up: whoever owns it can point it here.
    private static func isLocal(_ origin: String) -> Bool {
        let parts = origin.lowercased().split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, parts[1].isEmpty else { return false }
        let place = parts[2]
        if place == "[::1]" || place.hasPrefix("[::1]:") { return true }
        let host = place.prefix { $0 != ":" }
        let isAddress = host.utf8.allSatisfy {
            $0 == UInt8(ascii: ".") || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
        }
        return host == "localhost" || host.hasPrefix("127.") && isAddress
    }

    /// Whether it can be the base64 of 16 bytes.
    private static func isKey(_ text: String) -> Bool { text.utf8.count == 24 && text.hasSuffix("==") }
}

/// Why a request was not granted, and how HTTP says so.
struct OpeningRefusal: Error, Equatable {
    let status: HTTPResponseStatus
    let text: String
    var headers: HTTPHeaders = [:]

    static let malformed = Self(status: .badRequest, text: "This is not a request to open a WebSocket.")
    static let unknownSubprotocol = Self(
        status: .badRequest, text: "The WebSocket subprotocol spoken here is mqtt.")
    static let foreignPage = Self(
        status: .forbidden, text: "Only pages from this machine may connect here.")
    static let unknownPath = Self(status: .notFound, text: "There is no MQTT under this path.")
    static let wrongMethod = Self(
        status: .methodNotAllowed, text: "A WebSocket is opened with GET.", headers: ["Allow": "GET"])
    static let tooLate = Self(status: .requestTimeout, text: "The request took too long.")
    static let noUpgrade = Self(
        status: .upgradeRequired, text: "MQTT is spoken here over WebSocket, version 13.",
        headers: ["Upgrade": "websocket", "Sec-WebSocket-Version": "13"])
    static let headTooLarge = Self(
        status: .requestHeaderFieldsTooLarge, text: "The request is too long.")
}

import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// A server that answers as a test says and keeps what it was sent.
final class TestServer: Sendable {
    let port: Int
    private let channel: any Channel
    private let kept: Kept

    /// - Parameters:
    ///   - answer: to what came in one piece; nil hangs up.
    ///   - stages: what stands between a connection's bytes and what is kept, made anew for each.
    init(
        host: String = "127.0.0.1", answer: @escaping @Sendable ([UInt8]) -> [UInt8]? = { _ in [] },
        stages: @escaping @Sendable () throws -> [any ChannelHandler] = { [] }
    ) async throws {
        let kept = Kept()
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    kept.connections.withLock { $0 += 1 }
                    let pipeline = channel.pipeline.syncOperations
                    for stage in try stages() { try pipeline.addHandler(stage) }
                    try pipeline.addHandler(Keeper(kept: kept, answer: answer))
                }
            }
            .bind(host: host, port: 0).get()
        guard let port = channel.localAddress?.port else { throw ChannelError.unknownLocalAddress }
        self.port = port
        self.kept = kept
    }

    /// Everything that came, of all connections.
    var bytes: [UInt8] { kept.bytes.withLock { $0 } }
    var connections: Int { kept.connections.withLock { $0 } }

    func close() async throws { try await channel.close() }

    private final class Kept: Sendable {
        let bytes = Mutex<[UInt8]>([])
        let connections = Mutex(0)
    }

    private final class Keeper: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private let kept: Kept
        private let answer: @Sendable ([UInt8]) -> [UInt8]?

        init(kept: Kept, answer: @escaping @Sendable ([UInt8]) -> [UInt8]?) {
            self.kept = kept
            self.answer = answer
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = Array(unwrapInboundIn(data).readableBytesView)
            kept.bytes.withLock { $0 += bytes }
            guard let answer = answer(bytes) else { return context.close(promise: nil) }
            if !answer.isEmpty {
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            context.close(promise: nil)
        }
    }
}

extension TestServer {
    /// One that speaks TLS with a certificate, and keeps what is inside.
    static func secure(
        _ identity: Certificates.Identity, protocols: [String] = [], speaksTLS13: Bool = true,
        answer: @escaping @Sendable ([UInt8]) -> [UInt8]? = { _ in [] }
    ) async throws -> TestServer {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile(identity.certificate).map {
                .certificate($0)
            },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: identity.key, format: .pem)))
        configuration.applicationProtocols = protocols
        if !speaksTLS13 { configuration.maximumTLSVersion = .tlsv12 }
        let context = try NIOSSLContext(configuration: configuration)
        return try await TestServer(answer: answer, stages: { [NIOSSLServerHandler(context: context)] })
    }

    /// CONNACK with success, MQTT 5.
    static let connack: [UInt8] = [0x20, 3, 0, 0, 0]
}

/// An HTTP proxy that makes tunnels to this machine, and keeps what it was asked for.
///
/// The names it is asked for need not exist: every tunnel leads to 127.0.0.1.
final class TestProxy: Sendable {
    let port: Int
    private let channel: any Channel
    private let requests = Requests()

    private final class Requests: Sendable {
        let heads = Mutex<[String]>([])
    }

    /// - Parameter credentials: what it wants to see behind `Basic`.
    init(credentials: String? = nil) async throws {
        let requests = requests
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Entrance(credentials: credentials) { head in
                            requests.heads.withLock { $0.append(head) }
                        })
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        guard let port = channel.localAddress?.port else { throw ChannelError.unknownLocalAddress }
        self.port = port
    }

    /// Request heads, in order.
    var heads: [String] { requests.heads.withLock { $0 } }

    func close() async throws { try await channel.close() }

    /// The client's side of a tunnel.
    private final class Entrance: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private let credentials: String?
        private let keep: (String) -> Void
        private var head = ""
        private var far: (any Channel)?

        init(credentials: String?, keep: @escaping (String) -> Void) {
            self.credentials = credentials
            self.keep = keep
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = unwrapInboundIn(data)
            if let far { return far.writeAndFlush(bytes, promise: nil) }
            head += String(buffer: bytes)
            guard head.hasSuffix("\r\n\r\n") else { return }
            keep(head)
            if let credentials, !head.contains("Proxy-Authorization: Basic \(credentials)\r\n") {
                say("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", context)
                return context.close(promise: nil)
            }
            let target = head.split(separator: " ")[1]
            guard head.hasPrefix("CONNECT "),
                let port = target.split(separator: ":").last.flatMap({ Int($0) })
            else { return context.close(promise: nil) }
            let near = context.channel
            let loopBound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            ClientBootstrap(group: context.eventLoop)
                .channelInitializer { $0.pipeline.addHandler(Exit(near: near)) }
                .connect(host: "127.0.0.1", port: port)
                .whenComplete { result in
                    let (entrance, context) = loopBound.value
                    switch result {
                    case .success(let far):
                        entrance.far = far
                        entrance.say("HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n", context)
                    case .failure:
                        entrance.say("HTTP/1.1 502 Bad Gateway\r\n\r\n", context)
                        context.close(promise: nil)
                    }
                }
        }

        private func say(_ text: String, _ context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) { far?.close(promise: nil) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    /// The far side.
    private final class Exit: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer

        private let near: any Channel

        init(near: any Channel) { self.near = near }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            near.writeAndFlush(unwrapInboundIn(data), promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) { near.close(promise: nil) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

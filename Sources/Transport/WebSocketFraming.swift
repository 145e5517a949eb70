import NIOCore
import NIOWebSocket

/// Carries the bytes of MQTT in WebSocket frames (RFC 6455), under the connection's own handler.
///
/// What comes in binary frames is one stream of bytes: packets may span frames or share them [MQTT5-6.0.0-2],
/// and so may the fragments of a message. Each write becomes one frame.
final class WebSocketFraming: ChannelDuplexHandler {
    typealias InboundIn = WebSocketFrame
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = WebSocketFrame

    /// The last fragment of a message is still to come.
    private var isMessageOpen = false
    /// Of the Close frame: after it nothing but the end is sent, or read.
    private var isCloseSent = false
    private var isCloseReceived = false
    /// The client broke a rule, and what it still sends is thrown away.
    private var hasFailed = false
    /// The last Ping that came while the client did not read. RFC 6455, 5.5.3 lets the older ones go.
    private var unansweredPing: ByteBuffer?
    private var isPongUnflushed = false

    // MARK: In

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasFailed, !isCloseReceived else { return }
        let frame = unwrapInboundIn(data)
        guard frame.maskKey != nil, !frame.rsv1, !frame.rsv2, !frame.rsv3 else {
            return fail(.protocolError, context)
        }
        switch frame.opcode {
        case .binary, .continuation:
            guard isMessageOpen == (frame.opcode == .continuation) else {
                return fail(.protocolError, context)
            }
            isMessageOpen = !frame.fin
            let bytes = frame.unmaskedData
            if bytes.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(bytes)) }
        case .text:
            // [MQTT5-6.0.0-1]
            fail(.unacceptableData, context)
        case .ping:
            pong(frame.unmaskedData, context)
        case .pong:
            return
        case .connectionClose:
            closeReceived(frame.unmaskedData, context)
        default:
            fail(.protocolError, context)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if isPongUnflushed {
            isPongUnflushed = false
            context.flush()
        }
        context.fireChannelReadComplete()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? NIOWebSocketError else { return context.fireErrorCaught(error) }
        switch error {
        case .invalidFrameLength: fail(.messageTooLarge, context)
        case .fragmentedControlFrame, .multiByteControlFrameLength: fail(.protocolError, context)
        }
    }

    private func fail(_ code: WebSocketErrorCode, _ context: ChannelHandlerContext) {
        guard !hasFailed else { return }
        hasFailed = true
        sendClose(code, context)
        context.fireUserInboundEventTriggered(FramingEnded())
    }

    /// Answers at once unless the client does not read what it is sent, so that Pings cannot fill the memory.
    private func pong(_ data: ByteBuffer, _ context: ChannelHandlerContext) {
        guard !isCloseSent else { return }
        guard context.channel.isWritable else {
            unansweredPing = data
            return
        }
        context.write(wrapOutboundOut(WebSocketFrame(fin: true, opcode: .pong, data: data)), promise: nil)
        isPongUnflushed = true
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, let ping = unansweredPing {
            unansweredPing = nil
            pong(ping, context)
            isPongUnflushed = false
            context.flush()
        }
        context.fireChannelWritabilityChanged()
    }

    /// The client's Close: it is answered unless it is the answer, and the connection ends (RFC 6455, 7.1.1).
    private func closeReceived(_ data: ByteBuffer, _ context: ChannelHandlerContext) {
        isCloseReceived = true
        guard !isCloseSent else { return context.close(promise: nil) }
        let code: WebSocketErrorCode? =
            data.readableBytes == 0 ? nil : Self.closeCode(data) ?? .protocolError
        // What waits before the answer may never be read.
        let channel = context.channel
        let cut = context.eventLoop.scheduleTask(in: Limits.closeAnswerTime) { channel.close(promise: nil) }
        sendClose(code, context).assumeIsolated().whenComplete { _ in
            cut.cancel()
            context.close(promise: nil)
        }
    }

    /// nil when it is not one that may be sent (RFC 6455, 7.4).
    private static func closeCode(_ data: ByteBuffer) -> WebSocketErrorCode? {
        guard let code: UInt16 = data.getInteger(at: data.readerIndex) else { return nil }
        switch code {
        case 1000...1003, 1007...1014, 3000...4999: return WebSocketErrorCode(codeNumber: Int(code))
        default: return nil
        }
    }

    // MARK: Out

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !isCloseSent else {
            promise?.fail(ChannelError.outputClosed)
            return
        }
        let frame = WebSocketFrame(fin: true, opcode: .binary, data: unwrapOutboundIn(data))
        context.write(wrapOutboundOut(frame), promise: promise)
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output { sendClose(.normalClosure, context) }
        context.close(mode: mode, promise: promise)
    }

    /// - Returns: done when it was written, or never can be.
    @discardableResult
    private func sendClose(_ code: WebSocketErrorCode?, _ context: ChannelHandlerContext)
        -> EventLoopFuture<Void>
    {
        guard !isCloseSent else { return context.eventLoop.makeSucceededVoidFuture() }
        isCloseSent = true
        unansweredPing = nil
        var data = context.channel.allocator.buffer(capacity: 2)
        if let code { data.write(webSocketErrorCode: code) }
        let written = context.eventLoop.makePromise(of: Void.self)
        let frame = WebSocketFrame(fin: true, opcode: .connectionClose, data: data)
        context.writeAndFlush(wrapOutboundOut(frame), promise: written)
        return written.futureResult
    }
}

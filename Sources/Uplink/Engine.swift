import CMosquitto
import Glibc
import MQTT

/// libmosquitto as a function of bytes: what the library would write to a broker comes out of `takeOutput`,
/// and what a broker would say goes into `feed`, which runs the library's callbacks before it returns.
///
/// The library only speaks to sockets, so it is given one whose other end we hold: it connects to a
/// listening socket in a directory only we can enter, which is gone again before the first byte flows. No
/// thread of the library's runs, nothing blocks and no name is looked up.
///
/// One engine serves one network connection. The library keeps its session in RAM and resends from it after
/// a reconnection, under identifiers and by rules that are not the queue's; the core's durable state knows
/// better what to resend, so each connection gets a fresh client that has nothing to resend.
///
/// Used by one thread: the library's locks are never contended.
package final class Engine {
    /// What the library's callbacks said, in the order they ran.
    package enum Event: Hashable {
        /// CONNACK was read.
        case connected(code: Int32)
        /// A PUBLISH was read; `id` is 0 for QoS 0.
        case message(id: UInt16, payloadBytes: Int)
        /// A QoS 0 PUBLISH was written, or the acknowledgement of a QoS 1 PUBLISH was read.
        case published(mid: UInt16)
        case subscribed(mid: UInt16)
        case disconnected(code: Int32)
    }

    private let client: OpaquePointer
    /// Our end of the pipe, non-blocking.
    private let pipe: Int32
    private var events: [Event] = []
    private var output: [UInt8] = []
    private var room = [UInt8](repeating: 0, count: 65_536)
    /// Set once; from then on every call does nothing.
    package private(set) var failure: EngineFailure?

    /// Makes a client and the pipe to it; CONNECT waits in the library for the first `pump`.
    ///
    /// - Parameters:
    ///   - keepAliveSeconds: after so long without traffic `tick` makes the library write PINGREQ; the library
    ///     knows 0 for never and nothing between that and 5, which are taken as 5.
    ///   - directory: where the private directory is made, at most 80 bytes.
    package init(
        clientIdentifier: String, version: ProtocolVersion, keepAliveSeconds: UInt16, directory: String
    ) throws(EngineFailure) {
        client = try Self.makeClient(clientIdentifier, version)
        do throws(EngineFailure) {
            pipe = try Self.connect(
                client, keepAliveSeconds: keepAliveSeconds == 0 ? 0 : max(5, Int32(keepAliveSeconds)),
                in: directory)
        } catch {
            mosquitto_destroy(client)
            throw error
        }
        // The pointer cannot dangle: the library runs callbacks only inside calls made by this object's own
        // methods, and the client dies in `deinit`.
        mosquitto_user_data_set(client, Unmanaged.passUnretained(self).toOpaque())
        setCallbacks()
    }

    deinit {
        mosquitto_destroy(client)
        close(pipe)
    }

    /// Hands the library bytes as if the broker had sent them, and runs it until it has read them all.
    ///
    /// - Complexity: O(bytes), with some six system calls a packet
    package func feed(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { buffer in
            var rest = UnsafeRawBufferPointer(rebasing: buffer[...])
            while !rest.isEmpty, failure == nil {
                let sent = send(pipe, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
                if sent > 0 {
                    rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
                } else if errno != EAGAIN && errno != EINTR {
                    failure = .system("send", errno)
                    return
                }
                // A full pipe holds at least one byte for the library, so this always makes room.
                readAll()
            }
        }
    }

    /// Queues a PUBLISH in the library and says under which of its own identifiers; nil when the library
    /// does not take this message (its topic rules are narrower than MQTT's).
    ///
    /// - Parameter qos: 0 or 1; the ledger makes QoS 2 of it.
    /// - Complexity: O(bytes)
    package func publish(_ message: ApplicationMessage, qos: QoS, retain: Bool) -> UInt16? {
        precondition(qos < .exactlyOnce, "the engine is never asked for QoS 2")
        guard failure == nil, message.payload.count <= Int(Int32.max) else { return nil }
        var mid: Int32 = 0
        let result = withCString(message.topic) { topic in
            message.payload.withUnsafeBytes { payload in
                mosquitto_publish_v5(
                    client, &mid, topic, Int32(payload.count), payload.baseAddress, Int32(qos.rawValue),
                    retain,
                    nil)
            }
        }
        return result == MOSQ_ERR_SUCCESS.rawValue.signed ? UInt16(truncatingIfNeeded: mid) : nil
    }

    /// Queues a SUBSCRIBE for one filter; nil when the library does not take it.
    package func subscribe(_ request: SubscriptionRequest) -> UInt16? {
        guard failure == nil else { return nil }
        var options = Int32(request.retainHandling.rawValue) << 4
        if request.noLocal { options |= 0x04 }
        if request.retainAsPublished { options |= 0x08 }
        var mid: Int32 = 0
        let result = withCString(request.filter.bytes[...]) { filter in
            mosquitto_subscribe_v5(client, &mid, filter, Int32(request.maximumQoS.rawValue), options, nil)
        }
        return result == MOSQ_ERR_SUCCESS.rawValue.signed ? UInt16(truncatingIfNeeded: mid) : nil
    }

    /// Lets the library look at its keep-alive clock; call about once a second.
    package func tick() {
        guard failure == nil else { return }
        check(mosquitto_loop_misc(client), "mosquitto_loop_misc")
    }

    /// Moves everything the library wants to write into the output.
    ///
    /// - Complexity: O(bytes)
    package func pump() {
        guard failure == nil else { return }
        var moved: Bool
        repeat {
            if mosquitto_want_write(client) {
                check(mosquitto_loop_write(client, 1), "mosquitto_loop_write")
            }
            moved = drain()
        } while moved && failure == nil && mosquitto_want_write(client)
    }

    /// The bytes that came out since the last call.
    package func takeOutput() -> [UInt8] {
        defer { output.removeAll(keepingCapacity: output.capacity <= 65_536) }
        return output
    }

    /// The callbacks that ran since the last call.
    package func takeEvents() -> [Event] {
        defer { events.removeAll(keepingCapacity: true) }
        return events
    }

    // MARK: The library's side of the pipe

    /// Runs the library's reader, which takes about one packet a call, until its socket is empty.
    private func readAll() {
        while failure == nil {
            var ready = pollfd(fd: mosquitto_socket(client), events: Int16(POLLIN), revents: 0)
            guard ready.fd >= 0 else {
                failure = .library("mosquitto_socket", MOSQ_ERR_NO_CONN.rawValue.signed)
                return
            }
            guard poll(&ready, 1, 0) == 1 else { return }
            check(mosquitto_loop_read(client, 1), "mosquitto_loop_read")
        }
    }

    /// Reads our end until it is empty; whether anything came.
    private func drain() -> Bool {
        var moved = false
        while true {
            let count = room.withUnsafeMutableBytes { recv(pipe, $0.baseAddress, $0.count, 0) }
            if count > 0 {
                output.append(contentsOf: room[..<count])
                moved = true
                // A short read emptied the pipe.
                if count < room.count { return true }
            } else if count == 0 {
                // The library hung up; what it wrote before is in `output`.
                if failure == nil { failure = .library("read", MOSQ_ERR_CONN_LOST.rawValue.signed) }
                return moved
            } else if errno != EINTR {
                if errno != EAGAIN, failure == nil { failure = .system("recv", errno) }
                return moved
            }
        }
    }

    private func check(_ code: Int32, _ call: StaticString) {
        if code != MOSQ_ERR_SUCCESS.rawValue.signed, failure == nil { failure = .library(call, code) }
    }

    /// A topic with the zero the library looks for; MQTT allows no zero inside.
    private func withCString<R>(_ bytes: ArraySlice<UInt8>, _ body: (UnsafePointer<CChar>?) -> R) -> R {
        var terminated: [CChar] = []
        terminated.reserveCapacity(bytes.count + 1)
        for byte in bytes { terminated.append(CChar(bitPattern: byte)) }
        terminated.append(0)
        return terminated.withUnsafeBufferPointer { body($0.baseAddress) }
    }

    // MARK: Setting up

    private static func makeClient(_ clientIdentifier: String, _ version: ProtocolVersion)
        throws(EngineFailure) -> OpaquePointer
    {
        guard libraryInitialised == MOSQ_ERR_SUCCESS.rawValue.signed else {
            throw .library("mosquitto_lib_init", libraryInitialised)
        }
        guard let client = mosquitto_new(clientIdentifier, true, nil) else {
            throw .system("mosquitto_new", errno)
        }
        // "Threaded" makes the library only queue what it has to write, so that bytes move in `pump` alone.
        // The core obeys the cloud's limits; the library must not hold anything back on its own account.
        let results = [
            mosquitto_threaded_set(client, true),
            mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, Int32(version.rawValue)),
            mosquitto_int_option(client, MOSQ_OPT_RECEIVE_MAXIMUM, 65_535),
            mosquitto_int_option(client, MOSQ_OPT_SEND_MAXIMUM, 65_535),
            mosquitto_max_inflight_messages_set(client, 65_535),
        ]
        if let bad = results.first(where: { $0 != MOSQ_ERR_SUCCESS.rawValue.signed }) {
            mosquitto_destroy(client)
            throw .library("mosquitto_int_option", bad)
        }
        return client
    }

    /// Listens in a fresh directory of mode 0700, lets the library connect, accepts once and removes both.
    private static func connect(_ client: OpaquePointer, keepAliveSeconds: Int32, in directory: String)
        throws(EngineFailure) -> Int32
    {
        let home = try makePrivateDirectory(in: directory)
        defer { rmdir(home) }
        let path = home + "/e"
        let listener = try listen(at: path)
        defer {
            close(listener)
            unlink(path)
        }
        // Port 0 tells the library that the host is a path.
        let result = mosquitto_connect(client, path, 0, keepAliveSeconds)
        guard result == MOSQ_ERR_SUCCESS.rawValue.signed else {
            throw .library("mosquitto_connect", result)
        }
        let pipe = accept(listener, nil, nil)
        guard pipe >= 0 else { throw .system("accept", errno) }
        guard fcntl(pipe, F_SETFD, FD_CLOEXEC) == 0, fcntl(pipe, F_SETFL, O_NONBLOCK) == 0 else {
            close(pipe)
            throw .system("fcntl", errno)
        }
        guard peerIsThisProcess(pipe) else {
            close(pipe)
            throw .stranger
        }
        return pipe
    }

    private static func makePrivateDirectory(in directory: String) throws(EngineFailure) -> String {
        guard directory.utf8.count <= 80 else { throw .system("mkdtemp", ENAMETOOLONG) }
        var template = (directory + "/tidegate-XXXXXX").utf8CString
        let made = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.map { mkdtemp($0) != nil } ?? false
        }
        guard made else { throw .system("mkdtemp", errno) }
        return template.withUnsafeBufferPointer { buffer in
            String(decoding: buffer.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    private static func listen(at path: String) throws(EngineFailure) -> Int32 {
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard listener >= 0 else { throw .system("socket", errno) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard bound == 0, Glibc.listen(listener, 1) == 0 else {
            let code = errno
            close(listener)
            throw .system("bind", code)
        }
        return listener
    }

    /// SO_PEERCRED answers with `struct ucred`: process, user, group, each of four bytes.
    private static func peerIsThisProcess(_ pipe: Int32) -> Bool {
        var credentials: (process: Int32, user: UInt32, group: UInt32) = (0, 0, 0)
        var size = socklen_t(12)
        return getsockopt(pipe, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0
            && credentials.process == getpid() && credentials.user == geteuid()
    }

    private func setCallbacks() {
        mosquitto_connect_v5_callback_set(client) { _, context, code, _, _ in
            Engine.from(context)?.events.append(.connected(code: code))
        }
        mosquitto_message_v5_callback_set(client) { _, context, message, _ in
            guard let message = message?.pointee else { return }
            Engine.from(context)?.events.append(
                .message(
                    id: UInt16(truncatingIfNeeded: message.mid), payloadBytes: Int(message.payloadlen)))
        }
        mosquitto_publish_v5_callback_set(client) { _, context, mid, _, _ in
            Engine.from(context)?.events.append(.published(mid: UInt16(truncatingIfNeeded: mid)))
        }
        mosquitto_subscribe_v5_callback_set(client) { _, context, mid, _, _, _ in
            Engine.from(context)?.events.append(.subscribed(mid: UInt16(truncatingIfNeeded: mid)))
        }
        mosquitto_disconnect_v5_callback_set(client) { _, context, code, _ in
            Engine.from(context)?.events.append(.disconnected(code: code))
        }
    }

    /// The engine whose address `init` gave the library.
    private static func from(_ context: UnsafeMutableRawPointer?) -> Engine? {
        context.map { Unmanaged<Engine>.fromOpaque($0).takeUnretainedValue() }
    }
}

/// Why libmosquitto cannot go on; the connection it served is given up.
package enum EngineFailure: Error, CustomStringConvertible {
    /// A system call failed, with `errno`.
    case system(StaticString, Int32)
    /// A call into the library failed, with its own error number.
    case library(StaticString, Int32)
    /// Somebody else than this process connected to the private socket.
    case stranger

    package var description: String {
        switch self {
        case .system(let call, let code): "\(call): \(String(cString: strerror(code)))"
        case .library(let call, let code): "\(call): \(String(cString: mosquitto_strerror(code)))"
        case .stranger: "another process connected to the engine's socket"
        }
    }
}

/// Once for the process: the library asks for it before its first client.
private let libraryInitialised = mosquitto_lib_init()

extension UInt32 {
    /// C's enumerators come as UInt32 or Int32 depending on their values; functions return Int32.
    fileprivate var signed: Int32 { Int32(bitPattern: self) }
}
extension Int32 {
    fileprivate var signed: Int32 { self }
}

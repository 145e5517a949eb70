import MQTT
import NIOCore
import NIOHTTP1

/// The clients' side of the gateway: listeners, connections, and packets in and out of them, all on one event loop.
///
/// Writing is batched: `send` only encodes, and `flush` hands each connection what it was sent in one write.
/// Nothing here waits, locks or allocates per packet beyond the bytes of the packet. Only debug builds check that no
/// access to what changes with every packet overlaps another: none is open while the delegate or NIO is called.
package final class Transport {
    package let plan: TransportPlan
    let loop: any EventLoop
    let allocator = ByteBufferAllocator()
    /// Held from `start` until everything is closed.
    // `any`, because generics over the delegate are not specialised across modules, which costs more on every packet.
    private(set) var delegate: (any TransportDelegate)?

    private var listeners: [Listener] = []
    /// By slot: see `ConnectionNumber`.
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var connections: [Connection?] = []
    private var vacantSlots: [Int] = []
    private var openedCount: UInt64 = 0
    /// Open sockets by place in `plan.listeners`.
    private var socketCounts: [Int]

    private var unflushed: [Connection] = []
    /// To be told, in this order, when the cycle ends.
    private var notices: [Notice] = []
    private var troubles: [TransportTrouble] = []
    private var isCycleScheduled = false

    /// Connections that are closing or not writable.
    private var watched: [Connection] = []
    private var isWatchScheduled = false
    private var emptied: EventLoopPromise<Void>?

    /// - Parameter loop: where everything happens, calls of this type's methods included.
    package init(plan: TransportPlan, loop: any EventLoop) {
        precondition(
            plan.connectionsMax < ConnectionNumber.slotMask, "a connection's number has room for its slot")
        self.plan = plan
        self.loop = loop
        self.socketCounts = Array(repeating: 0, count: plan.listeners.count)
    }

    /// Bytes clients have sent, and bytes handed to their sockets, since the start.
    package internal(set) var bytesReceived: UInt64 = 0
    package internal(set) var bytesSent: UInt64 = 0

    /// Clients whose sockets are open.
    package var socketCount: Int { socketCounts.reduce(0, +) }

    // MARK: For the host

    /// Adds a packet to what the next `flush` writes to a connection, in the version it speaks.
    ///
    /// Nothing happens when the connection is gone or was closed.
    ///
    /// - Complexity: O(bytes of the packet)
    package func send(_ number: ConnectionNumber, _ packet: borrowing Packet) {
        self[number]?.send(packet)
    }

    /// Writes what was sent: one write for each connection that was sent anything.
    package func flush() {
        guard !unflushed.isEmpty else { return }
        // Nobody is sent anything meanwhile: whoever could is told of nothing in the middle of a write.
        for connection in unflushed { connection.flush() }
        unflushed.removeAll(keepingCapacity: true)
    }

    /// Closes a connection after what was sent to it; it reads nothing more. `closed` follows.
    package func close(_ number: ConnectionNumber) { self[number]?.close() }

    /// Goes on (`true`) or stops (`false`) reading a connection. While it is stopped its client is held back by
    /// TCP; packets that had already come are told first when reading goes on.
    package func reading(_ number: ConnectionNumber, _ reads: Bool) { self[number]?.setReading(reads) }

    /// Takes no larger packets from a connection any more, from the next one on.
    package func packetSize(_ number: ConnectionNumber, atMost bytesMax: Int) {
        self[number]?.setMaximumPacketSize(bytesMax)
    }

    private subscript(number: ConnectionNumber) -> Connection? {
        let slot = number.slot
        guard slot < connections.count, let connection = connections[slot], connection.number == number else {
            return nil
        }
        return connection
    }

    // MARK: Start and stop

    /// Opens every listener, or none.
    ///
    /// - Returns: the addresses bound, in the order of the plan; fails with `ListenFailure`.
    package func start(delegate: any TransportDelegate) -> EventLoopFuture<[SocketAddress]> {
        loop.preconditionInEventLoop()
        self.delegate = delegate
        listeners = plan.listeners.indices.map { Listener(transport: self, place: $0) }
        let bound = listeners.map { $0.open() }
        return EventLoopFuture.whenAllComplete(bound, on: loop).assumeIsolated().flatMapThrowing { results in
            do {
                return try results.map { try $0.get() }
            } catch {
                self.stopAccepting()
                self.delegate = nil
                throw error
            }
        }.nonisolated()
    }

    /// Reads the certificates and keys of TLS listeners again, for connections to come. Files that cannot be used change
    /// nothing.
    ///
    /// - Returns: what is wrong with them.
    package func readSecurity() -> [SecurityFailure] {
        listeners.compactMap { listener in
            do throws(SecurityFailure) { try listener.readSecurity() } catch { return error }
            return nil
        }
    }

    /// Closes the listeners; the connections stay.
    package func stopAccepting() {
        for listener in listeners { listener.close() }
        listeners = []
    }

    /// Stops accepting and closes every connection after what was sent to it.
    ///
    /// - Returns: done when no connection is left, `plan.closeTimeout` from now at the latest.
    package func stop() -> EventLoopFuture<Void> {
        stopAccepting()
        let promise = loop.makePromise(of: Void.self)
        if let emptied {
            emptied.futureResult.cascade(to: promise)
        } else {
            emptied = promise
        }
        for connection in connections { connection?.close() }
        endCycleSoon()
        return promise.futureResult
    }

    // MARK: Connections come and go

    func admits(place: Int) -> Bool {
        socketCounts[place] < plan.listeners[place].connectionsMax && socketCount < plan.connectionsMax
    }

    func register(_ connection: Connection) -> ConnectionNumber {
        let slot: Int
        if let vacant = vacantSlots.popLast() {
            slot = vacant
            connections[slot] = connection
        } else {
            slot = connections.count
            connections.append(connection)
        }
        socketCounts[connection.place] += 1
        openedCount += 1
        return openedCount << ConnectionNumber.slotBits | UInt64(slot)
    }

    func socketClosed(_ connection: Connection) { socketCounts[connection.place] -= 1 }

    /// Nothing more will be heard of a connection; saying so twice is harmless.
    func finished(_ connection: Connection) {
        guard connections[connection.number.slot] === connection else { return }
        connections[connection.number.slot] = nil
        vacantSlots.append(connection.number.slot)
        if connection.isAnnounced { notices.append(.closed(connection.number)) }
        endCycleSoon()
    }

    func markUnflushed(_ connection: Connection) { unflushed.append(connection) }

    // MARK: Cycles

    func resumeSoon(_ connection: Connection) {
        notices.append(.resume(connection))
        endCycleSoon()
    }

    func tellWritabilitySoon(_ connection: Connection) {
        notices.append(.writability(connection))
        endCycleSoon()
    }

    func tellSoon(_ trouble: TransportTrouble) {
        troubles.append(trouble)
        endCycleSoon()
    }

    /// Ends the cycle once every channel that has something to read now was read: the loop runs tasks after
    /// the sockets that were ready together, so that one flush serves them all.
    func endCycleSoon() {
        guard !isCycleScheduled else { return }
        isCycleScheduled = true
        loop.assumeIsolated().execute { self.endCycle() }
    }

    private func endCycle() {
        isCycleScheduled = false
        // What these cause is told in the next cycle: a busy delegate cannot hold the loop.
        let due = notices
        notices.removeAll(keepingCapacity: due.count <= Limits.keptNotices)
        for notice in due {
            switch notice {
            case .closed(let number): delegate?.closed(number)
            case .writability(let connection): tellWritability(connection)
            case .resume(let connection): connection.resume()
            }
        }
        let troubles = troubles
        self.troubles.removeAll()
        for trouble in troubles { delegate?.trouble(trouble) }
        delegate?.readCycleEnded()
        finishStopping()
    }

    private func tellWritability(_ connection: Connection) {
        guard !connection.isGone, connection.takeNewWritability() else { return }
        delegate?.writability(connection.number, connection.isWritable)
    }

    private func finishStopping() {
        guard let emptied, vacantSlots.count == connections.count, notices.isEmpty else { return }
        self.emptied = nil
        delegate = nil
        emptied.succeed()
    }

    // MARK: Time

    /// Looks at a connection every second until it says that this is no longer needed.
    func watch(_ connection: Connection) {
        guard !connection.isWatched else { return }
        connection.isWatched = true
        watched.append(connection)
        scheduleWatch()
    }

    private func scheduleWatch() {
        guard !isWatchScheduled, !watched.isEmpty else { return }
        isWatchScheduled = true
        loop.assumeIsolated().scheduleTask(in: Limits.watchInterval) { self.checkWatched() }
    }

    private func checkWatched() {
        isWatchScheduled = false
        let now = NIODeadline.now()
        let looked = watched
        watched = []
        for connection in looked {
            if connection.checkTime(now) {
                watched.append(connection)
            } else {
                connection.isWatched = false
            }
        }
        scheduleWatch()
    }
}

/// What is told when a cycle ends.
private enum Notice {
    case closed(ConnectionNumber)
    case writability(Connection)
    case resume(Connection)
}

enum Limits {
    /// Memory taken for what one cycle writes to a connection, in bytes, so that a few answers need no more.
    static let writeBytesMin = 128
    /// Notices for which memory is kept.
    static let keptNotices = 256
    /// How often connections that are closing or not writable are looked at.
    static let watchInterval: TimeAmount = .seconds(1)
    /// Connections that may wait to be accepted.
    static let backlog: Int32 = 1024
    /// Connections accepted before other work has its turn.
    static let acceptsPerCycle: UInt = 16
    /// How long nothing is accepted after accept(2) failed.
    static let acceptPause: TimeAmount = .milliseconds(500)
    /// How often refused connections are told.
    static let refusalInterval: TimeAmount = .seconds(60)
    /// Bytes of a connection that the kernel holds before it sends them.
    static let kernelUnsentBytesMax: ChannelOptions.Types.SocketOption.Value = 64 * 1024
    /// Bytes read from a socket at once: grows from the first to the second with what comes.
    static let receiveBytesMin = 512
    static let receiveBytesMax = 64 * 1024
    /// Bytes of the head of a request to open a WebSocket, and its fields; beyond them it is refused with 431.
    static var requestHead: NIOHTTPDecoderLimitConfiguration {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = 8 * 1024
        limits.maxHeaderListSize = 16 * 1024
        limits.maxHeaderFieldCount = 64
        return limits
    }
    /// Bytes of a WebSocket frame from a client: those of the largest packet, and this many where that is
    /// less, because small packets may share a frame. Beyond them the connection is closed with 1009.
    static let frameBytesMin = 64 * 1024
    /// How long a client that sent its Close frame may take to read what was sent before the answer.
    static let closeAnswerTime: TimeAmount = .seconds(4)
    /// How long a TLS handshake may take.
    static let handshakeTime: TimeAmount = .seconds(10)
}

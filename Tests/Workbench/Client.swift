import CMosquitto
import Foundation
import Synchronization

/// A real MQTT client on libmosquitto, with a persistent session and a thread of its own.
///
/// It reconnects for as long as it is wanted, publishes numbered messages at a steady rate with a bounded
/// window, catches up after an outage, and enters what it sent, what was acknowledged and what it received
/// in the ledger.
///
/// libmosquitto keeps a client's session in RAM, which is enough here: the clients are never killed. One thing
/// it does not do is to recognise a QoS 2 message resent with DUP before its PUBREL: it keeps a second copy
/// under the same Packet Identifier. Copies are told apart and left out (see `ClientThread.logged`), but one
/// would take the place of another message when that identifier comes round again. Identifiers for QoS 2 come
/// round after 32 767 messages, so a subscriber must be given fewer (`qos2MessagesMax`).
package final class Client: Sendable {
    package enum Version: Sendable { case v311, v5 }

    package struct Publication: Sendable {
        package var stream: Ledger.StreamID
        package var topic: String
        package var qos: Int32
        package var perSecond: Double
        /// Messages at QoS 1 and 2 that may await their acknowledgement at once.
        package var window = 20
        package var messagesMax = Int.max

        package init(stream: Ledger.StreamID, topic: String, qos: Int32, perSecond: Double) {
            self.stream = stream
            self.topic = topic
            self.qos = qos
            self.perSecond = perSecond
        }
    }

    package struct Plan: Sendable {
        package var id: String
        package var port: UInt16
        package var version: Version
        package var sessionExpirySeconds: UInt32 = 86_400
        package var keepAliveSeconds: Int32 = 10
        package var subscriptions: [(filter: String, qos: Int32)] = []
        package var publications: [Publication] = []
        package var payloadBytes = 96

        package init(id: String, port: UInt16, version: Version) {
            self.id = id
            self.port = port
            self.version = version
        }
    }

    /// Most QoS 2 messages one subscriber may be sent in a run; see the type's comment.
    package static let qos2MessagesMax = 30_000

    enum Wish: Equatable { case here, leaving(abruptly: Bool), away, ended }

    struct State {
        var wish = Wish.here
        var publishing = false
        var connected = false
        /// Every subscription of the plan was acknowledged in this Session.
        var subscribed = false
        var connections = 0
        var sessionsLost = 0
        var messages = 0
        var lastError: String?
        var disconnectReason: Int32?
    }

    package let plan: Plan
    let ledger: Ledger
    let state = Mutex(State())
    let bell = Bell()
    private let finished = DispatchSemaphore(value: 0)

    /// Starts it; it connects at once.
    package init(_ plan: Plan, ledger: Ledger) {
        LibraryInitialised.once
        self.plan = plan
        self.ledger = ledger
        let thread = Thread { [self] in
            ClientThread(self).run()
            finished.signal()
        }
        thread.name = plan.id
        thread.start()
    }

    /// Lets its publications run, or pauses them; what is in flight goes on.
    package func publishing(_ on: Bool) { change { $0.publishing = on } }

    /// Disconnects and stays away; with DISCONNECT, or by just closing the connection.
    package func leave(abruptly: Bool) { change { $0.wish = .leaving(abruptly: abruptly) } }

    /// Comes back to its session.
    package func comeBack() { change { $0.wish = .here } }

    /// Disconnects; its thread has ended on return.
    package func end() {
        change { $0.wish = .ended }
        finished.wait()
        finished.signal()
    }

    package var isConnected: Bool { state.withLock { $0.connected } }
    /// Connected, and all its subscriptions are acknowledged.
    package var isReady: Bool {
        state.withLock { $0.connected && ($0.subscribed || plan.subscriptions.isEmpty) }
    }
    /// Times it was told Session Present 0 although it had a Session before.
    package var sessionsLost: Int { state.withLock { $0.sessionsLost } }
    /// CONNACKs with success.
    package var connections: Int { state.withLock { $0.connections } }
    /// All messages that reached it, repeated ones and foreign ones too.
    package var messages: Int { state.withLock { $0.messages } }
    /// The Reason Code of the latest DISCONNECT the server sent (MQTT 5); nil when it never sent one.
    package var disconnectReason: Int32? { state.withLock { $0.disconnectReason } }
    package var lastError: String? { state.withLock { $0.lastError } }

    private func change(_ body: (inout State) -> Void) {
        state.withLock { body(&$0) }
        bell.ring()
    }
}

private enum LibraryInitialised {
    static let once: Void = { _ = mosquitto_lib_init() }()
}

import GatewayCore
import MQTT
import Testing

/// Promise P3: every message that was accepted for somebody is accounted for, and a replay comes to the same.
///
/// Not tested: what is let go for Sessions that leave no trace. It is in no books; `$SYS` counts it.
@Suite("Books")
struct BooksTests {
    @Test("what is acknowledged is delivered once a Record says so; until then it is queued")
    func delivered() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        for id in 1...3 as ClosedRange<UInt16> {
            s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))))
        }
        s.syncs()
        for packet in s.received("archive").prefix(2) {
            if let answer = packet.subscribersAnswer { s.sends("archive", answer) }
        }
        #expect(s.balance == Balance(books: Books(received: 3), queued: 3))
        s.passes(milliseconds: 2000)
        #expect(s.balance == Balance(books: Books(received: 3, delivered: 2), queued: 1))
        #expect(s.balance.isEven)
    }

    @Test("what the receiver refuses is dropped, not delivered")
    func refused() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2)))
        s.syncs()
        for publish in s.received("archive").publishes {
            guard let id = publish.id else { continue }
            let answer = Acknowledgement(id, .notAuthorized)
            s.sends("archive", publish.qos == .exactlyOnce ? .pubrec(answer) : .puback(answer))
        }
        s.syncs()
        let books = Books(received: 2, dropped: [(.refusedByReceiver, 2)])
        #expect(s.balance == Balance(books: books, queued: 0))
        #expect(s.balance.isEven)
    }

    @Test("what expires is counted apart from what is dropped")
    func expired() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        var publish = Publish.text("t", qos: .atLeastOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.syncs()
        s.passes(milliseconds: 20_000)
        s.connects("archive")
        #expect(s.balance.books.expired == 1)
        #expect(s.balance.books.droppedUnexpired == 0)
        #expect(s.balance.isEven)
    }

    @Test("what waits when a Session ends is dropped with it, and what it had acknowledged is not")
    func ended() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        for id in 1...3 as ClosedRange<UInt16> {
            s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))))
        }
        s.syncs()
        if let answer = s.received("archive").first?.subscribersAnswer { s.sends("archive", answer) }
        s.connects("archive", cleanStart: true)
        let books = Books(received: 3, delivered: 1, dropped: [(.sessionEnded, 2)])
        #expect(s.balance == Balance(books: books, queued: 0))
        #expect(s.gateway.state.endedBooks == books)
        s.losesPowerAndRecoversFromCheckpoint()
        #expect(s.balance == Balance(books: books, queued: 0))
    }

    @Test(
        "what the receiver refuses is dropped after a power cut too: its Record is written, though nobody lacks it"
    )
    func refusedBeforeItIsWritten() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        for id in s.received("archive").publishes.compactMap(\.id) {
            s.sends("archive", .puback(Acknowledgement(id, .notAuthorized)))
        }
        s.passes(milliseconds: 2000)
        s.syncs()
        let balance = Balance(books: Books(received: 1, dropped: [(.refusedByReceiver, 1)]), queued: 0)
        #expect(s.balance == balance)
        s.losesPower()
        #expect(s.balance == balance)
    }

    @Test("what a group hands to a member is received once")
    func shared() {
        var s = Scenario.connected("left", "press")
        s.subscribes("left", "$share/g/t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(
            s.balance == Balance(books: Books(received: 1, takenOver: 1, handedOver: 1), queued: 1))
        _ = s.drains("left")
        s.passes(milliseconds: 2000)
        let books = Books(received: 1, takenOver: 1, delivered: 1, handedOver: 1)
        #expect(s.balance == Balance(books: books, queued: 0))
        #expect(s.balance.isEven)
    }

    @Test("numbers that were passed over are delivered, but behind lost Records they are damage")
    func gaps() {
        let id = SessionID(1)
        func message(_ delivery: UInt64) -> Record {
            .message(
                MessageRecord(
                    qos: .atLeastOnce, message: ApplicationMessage(topic: [116], payload: []),
                    targets: [.init(session: id, delivery: Delivery(delivery), qos: .atLeastOnce)]))
        }
        var state = DurableState()
        state.apply(
            .sessionOpened(
                SessionOpened(
                    session: id, owner: .client(identifier: "a"), version: .v5_0, expirySeconds: .max,
                    isPersistent: true, will: nil)), at: Position(1))
        state.apply(message(0), at: Position(2))
        state.apply(message(3), at: Position(3))
        #expect(state[id]?.books == Books(received: 4, delivered: 2))
        state.apply(.lost(through: Position(5), count: 2), at: Position(5))
        state.apply(message(6), at: Position(6))
        state.apply(message(8), at: Position(7))
        let books = Books(received: 9, delivered: 3, dropped: [(.damaged, 2)])
        #expect(state.balance == Balance(books: books, queued: 4))
        #expect(state.balance.isEven)
    }

    @Test("a queue from a checkpoint without books has lost nothing that is known of")
    func olderStore() {
        let id = SessionID(1)
        var state = DurableState()
        state.apply(
            .sessionOpened(
                SessionOpened(
                    session: id, owner: .client(identifier: "a"), version: .v5_0, expirySeconds: .max,
                    isPersistent: true, will: nil)), at: .zero)
        state.apply(
            .queue(
                QueueRecord(
                    session: id, floor: Delivery(40),
                    entries: [
                        .init(position: Position(7), qos: .atLeastOnce, isReceived: false),
                        .init(position: nil, qos: .atLeastOnce, isReceived: false),
                        .init(position: Position(9), qos: .atLeastOnce, isReceived: false),
                    ])), at: .zero)
        #expect(state.balance == Balance(books: Books(received: 43, delivered: 41), queued: 2))
    }
}

extension Scenario {
    var balance: Balance { gateway.state.balance }
}

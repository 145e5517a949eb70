import Foundation
import Testing
import Workbench

/// The scales are checked before anything is weighed: clients and link against a plain broker.
@Suite("the workbench itself", .serialized)
struct WorkbenchTests {
    @Test(
        "clients lose and double nothing by themselves while their line is cut", arguments: [Seed.ofThisRun])
    func clientsAreCorrectPeers(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let rig = try Rig()
        let (broker, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            broker.stop()
        }
        let ledger = Ledger()
        var clients: [Client] = []
        for version in [Client.Version.v311, .v5] {
            var subscriber = Client.Plan(id: "subscriber-\(version)", port: link.port, version: version)
            subscriber.subscriptions = [("\(version)/#", 2)]
            var publisher = Client.Plan(id: "publisher-\(version)", port: link.port, version: version)
            for qos in [1, 2] {
                publisher.publications.append(
                    .init(
                        stream: ledger.open(.up, qos: qos, name: "\(version), QoS \(qos)"),
                        topic: "\(version)/\(qos)", qos: Int32(qos), perSecond: 200))
            }
            clients += [Client(subscriber, ledger: ledger), Client(publisher, ledger: ledger)]
        }
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(10) { clients.allSatisfy { $0.isReady } })
        clients.forEach { $0.publishing(true) }
        for round in 1...6 {
            usleep(400_000)
            let before = link.connections
            if round % 2 == 0 {
                link.cut()
            } else {
                link.cut(
                    after: .random(in: 1...2000, using: &random),
                    round % 4 == 1 ? .towardsTarget : .fromTarget)
                #expect(waitUpTo(20) { link.isCut })
            }
            usleep(200_000)
            link.restore()
            #expect(waitUpTo(20) { link.connections >= before + 4 })
        }
        waitUpTo(30) { [1, 2].allSatisfy { ledger.totals(qos: $0).received >= 500 } }
        clients.forEach { $0.publishing(false) }
        waitUpTo(20) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 }
        usleep(500_000)
        expectNothingLost(ledger, clients, atLeast: 500)
    }

    /// The message is the client's once PUBREL came, whatever becomes of the PUBCOMP it answers with.
    @Test(
        "a QoS 2 message counts as received although its PUBCOMP finds the line cut",
        arguments: [(Client.Version.v311, 0), (.v5, 1)])
    func releasedIsReceived(version: Client.Version, propertiesBytes: Int) throws {
        let rig = try Rig()
        let (broker, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            broker.stop()
        }
        let ledger = Ledger()
        var plan = Client.Plan(id: "subscriber", port: link.port, version: version)
        plan.subscriptions = [("t", 2)]
        let subscriber = Client(plan, ledger: ledger)
        plan = Client.Plan(id: "publisher", port: broker.port, version: version)
        plan.publications = [
            .init(stream: ledger.open(.up, qos: 2, name: "t"), topic: "t", qos: 2, perSecond: 20)
        ]
        let publisher = Client(plan, ledger: ledger)
        let clients = [subscriber, publisher]
        defer { clients.forEach { $0.end() } }
        let publishBytes = 2 + (2 + 1) + 2 + propertiesBytes + plan.payloadBytes
        let pubrelBytes = 4
        for _ in 1...5 {
            try #require(waitUpTo(10) { clients.allSatisfy { $0.isReady } })
            // So that CONNACK or SUBACK, and a PUBREL resent, are not counted among the bytes that follow.
            usleep(50_000)
            link.cut(after: publishBytes + pubrelBytes, .fromTarget)
            publisher.publishing(true)
            try #require(waitUpTo(10) { link.isCut && !subscriber.isConnected })
            publisher.publishing(false)
            link.restore()
            try #require(waitUpTo(10) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 })
        }
        let totals = ledger.totals()
        #expect(totals.received >= 5 && totals.received == totals.sent)
        #expect(totals.duplicated == 0)
    }

    @Test("the ledger tells lost, doubled, late and unknown messages apart")
    func ledgerCounts() {
        let ledger = Ledger()
        let stream = ledger.open(.up, qos: 2, name: "s")
        for number in 1...5 { #expect(ledger.sends(stream) == number) }
        for number in 1...4 { ledger.acknowledged(stream, number) }
        ledger.refused(stream, 5)
        for number in [2, 1, 2, 4] { ledger.received(stream, number) }
        ledger.received(stream, 6)
        let totals = ledger.totals(.up, qos: 2)
        #expect(totals.sent == 5)
        #expect(totals.acknowledged == 4)
        #expect(totals.received == 3)
        #expect(totals.lost == 1)
        #expect(totals.duplicated == 1)
        #expect(totals.outOfOrder == 1)
        #expect(totals.refused == 1)
        #expect(totals.unanswered == 0)
        #expect(totals.underWay == 1)
        #expect(ledger.backlog(.up) == 1)
        #expect(ledger.strangers == 1)
        #expect(ledger.faults() == ["s: lost [3] doubled [2]"])
        #expect(ledger.totals(.down) == Ledger.Totals())
    }

    @Test("a link that is cut resets and refuses; a black hole does neither")
    func linkCuts() throws {
        let rig = try Rig()
        let (broker, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            broker.stop()
        }
        let client = Client(Client.Plan(id: "c", port: link.port, version: .v5), ledger: Ledger())
        defer { client.end() }
        try #require(waitUpTo(5) { client.isConnected })
        link.cut()
        #expect(waitUpTo(2) { !client.isConnected })
        usleep(300_000)
        #expect(!client.isConnected)
        link.restore()
        #expect(waitUpTo(5) { client.isConnected })
        link.blackHole()
        usleep(500_000)
        #expect(client.isConnected)
        link.restore()
        usleep(300_000)
        #expect(client.isConnected)
        #expect(client.connections == 2)
        #expect(client.sessionsLost == 0)
    }

    @Test("a process that was killed is gone, and one that cannot start says so")
    func childrenEnd() throws {
        let rig = try Rig()
        let child = try ChildProcess("/bin/sleep", ["1000"], log: rig.place.file("log"))
        #expect(child.isRunning)
        child.kill()
        #expect(child.ended(within: 0) == .signalled(SIGKILL))
        #expect(throws: WorkbenchError.self) {
            try ChildProcess("/nowhere/x", [], log: rig.place.file("log"))
        }
    }

    @Test("a child holds open no socket of ours, so that closing it ends the connection")
    func childrenHoldNothing() throws {
        let rig = try Rig()
        var ends: [Int32] = [0, 0]
        // As SwiftNIO accepts them: without SOCK_CLOEXEC.
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        defer { close(ends[0]) }
        let child = try ChildProcess("/bin/sleep", ["1000"], log: rig.place.file("log"))
        close(ends[1])
        var byte: UInt8 = 0
        #expect(recv(ends[0], &byte, 1, Int32(MSG_DONTWAIT)) == 0)
        #expect(child.isRunning)
    }
}

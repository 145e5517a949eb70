import GatewayCore
import MQTT
import Testing

@testable import Simulation

/// The reference model itself: what it must report, and what it must not. An oracle that cannot fail proves nothing, and
/// one that cries without cause is soon not heard any more.
@Suite("Oracle")
struct OracleTests {
    @Test("P2: a message that was accepted and never came is missed; one that came is not")
    func loss() {
        for isLost in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1)
            story.accepts(1)
            if !isLost { story.receives(1) }
            #expect(story.ends() == (isLost ? ["valve never got 1#1"] : []))
        }
    }

    @Test("What nobody accepted is not owed, and may come")
    func unaccepted() {
        for comes in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1)
            if comes { story.receives(1) }
            #expect(story.ends() == [])
        }
    }

    @Test("P4: what was refused is not owed; passed on all the same, it is reported")
    func denied() {
        for comes in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1)
            story.saw(.denied(story.name(1), .quotaExceeded), by: 0)
            if comes { story.receives(1) }
            #expect(story.ends().isEmpty == !comes)
        }
        // Of two copies the first may have been taken.
        var story = Story()
        story.begins()
        story.publishes(1)
        story.publishes(1, duplicate: true)
        story.saw(.denied(story.name(1), .quotaExceeded), by: 0)
        story.receives(1)
        #expect(story.ends() == [])
    }

    @Test("A message in flight while SUBSCRIBE or UNSUBSCRIBE is may come or not")
    func uncertainSubscription() {
        for comes in [false, true] {
            var story = Story()
            story.connects(0)
            story.connects(1)
            story.publishes(1)
            story.subscribes(1)
            story.accepts(1)
            if comes { story.receives(1) }
            story.publishes(2)
            story.unsubscribes(1)
            story.accepts(2)
            if comes { story.receives(2) }
            #expect(story.ends() == [])
        }
    }

    @Test("[MQTT5-3.10.4-2] Nothing comes that was published after UNSUBACK, or accepted before SUBSCRIBE")
    func outsideSubscription() {
        var story = Story()
        story.connects(0)
        story.connects(1)
        story.publishes(1)
        story.accepts(1)
        story.subscribes(1)
        story.unsubscribes(1)
        story.publishes(2)
        story.accepts(2)
        story.receives(1)
        story.receives(2)
        #expect(story.ends().count == 2)
    }

    @Test("What was accepted before UNSUBSCRIBE is owed although it comes later")
    func beforeUnsubscribe() {
        for comes in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1)
            story.accepts(1)
            story.unsubscribes(1)
            if comes { story.receives(1) }
            #expect(story.ends().isEmpty == comes)
        }
    }

    @Test("P2: twice at QoS 2 is reported; twice under one identifier that is still held is not")
    func exactlyOnce() {
        for isNew in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1, .exactlyOnce)
            story.accepts(1)
            story.receives(1, .exactlyOnce)
            story.saw(.lost, by: 1)
            story.reconnects(1)
            story.receives(1, .exactlyOnce, duplicate: true, isNew: isNew)
            #expect(story.ends().isEmpty == !isNew)
        }
    }

    @Test(
        "[MQTT5-3.3.1-1] At QoS 1 a second copy needs DUP, and another connection or another copy of its publisher's"
    )
    func duplicates() {
        func story(sends: Int, breaks: Bool, duplicate: Bool) -> [String] {
            var story = Story()
            story.begins()
            story.publishes(1)
            for _ in 1..<sends { story.publishes(1, duplicate: true) }
            story.accepts(1)
            story.receives(1)
            if breaks {
                story.saw(.lost, by: 1)
                story.reconnects(1)
            }
            story.receives(1, duplicate: duplicate)
            return story.ends()
        }
        #expect(story(sends: 1, breaks: true, duplicate: true) == [])
        #expect(story(sends: 2, breaks: false, duplicate: false) == [])
        #expect(story(sends: 1, breaks: true, duplicate: false).count == 1)
        #expect(story(sends: 1, breaks: false, duplicate: true).count == 1)
    }

    @Test("[MQTT5-4.6.0-5] One author's messages of one topic and QoS come in their order, copies apart")
    func order() {
        func story(_ numbers: [UInt32], topics: [String] = ["t/a", "t/a", "t/a"]) -> [String] {
            var story = Story()
            story.begins()
            for i in 1...3 {
                story.publishes(UInt32(i), topic: topics[i - 1])
                story.accepts(UInt32(i))
            }
            for (i, number) in numbers.enumerated() {
                if i == 3 {
                    story.saw(.lost, by: 1)
                    story.reconnects(1)
                }
                story.receives(number, topic: topics[Int(number) - 1], duplicate: i >= 3)
            }
            return story.ends()
        }
        #expect(story([1, 2, 3]) == [])
        #expect(story([1, 2, 3, 1, 2]) == [])
        #expect(story([1, 3, 2]).count == 1)
        #expect(story([1, 3, 2], topics: ["t/a", "t/b", "t/a"]) == [])
    }

    @Test("[MQTT5-4.6.0-5] What was taken before the subscription and once more after it is no disorder")
    func orderAcrossSubscribe() {
        var story = Story()
        story.connects(0)
        story.connects(1)
        story.publishes(1)
        story.subscribes(1)
        story.publishes(2)
        story.receives(2)
        story.publishes(1, duplicate: true)
        story.publishes(2, duplicate: true)
        story.receives(1)
        story.receives(2)
        story.accepts(1)
        story.accepts(2)
        #expect(story.ends() == [])
    }

    @Test("Topic, QoS, RETAIN, expiry, Subscription Identifier and payload are the message's")
    func shape() {
        func story(_ change: (inout PeerEvent.Reception) -> Void) -> [String] {
            var story = Story()
            story.begins()
            story.publishes(1, expirySeconds: 1000)
            story.accepts(1)
            var reception = PeerEvent.Reception(
                name: story.name(1), topic: Array("t/a".utf8), qos: .atLeastOnce, expirySeconds: 1000)
            change(&reception)
            story.saw(.received(reception), by: 1)
            return story.ends()
        }
        #expect(story { _ in } == [])
        #expect(story { $0.expirySeconds = 999 } == [])
        #expect(!story { $0.topic = Array("t/b".utf8) }.isEmpty)
        #expect(!story { $0.qos = .exactlyOnce }.isEmpty)
        #expect(!story { $0.qos = .atMostOnce }.isEmpty)
        #expect(!story { $0.retain = true }.isEmpty)
        #expect(!story { $0.expirySeconds = 1001 }.isEmpty)
        #expect(!story { $0.expirySeconds = 900 }.isEmpty)
        #expect(!story { $0.expirySeconds = nil }.isEmpty)
        #expect(!story { $0.subscriptionIdentifiers = [7] }.isEmpty)
        #expect(!story { $0.name = MessageName(1, 77) }.isEmpty)
    }

    @Test("P9: what expires is owed until its time is over, and not longer")
    func expiry() {
        for seconds in [10, 1000] as [UInt64] {
            var story = Story()
            story.begins()
            story.publishes(1, expirySeconds: 500)
            story.accepts(1)
            story.now += seconds * 1_000_000
            #expect(story.ends().isEmpty == (seconds > 500))
        }
    }

    @Test("[MQTT5-3.2.2-3] Session Present is true: of a Session that lasts, that ended, that nobody began")
    func sessionPresent() {
        var story = Story()
        story.connects(1)
        story.saw(.lost, by: 1)
        story.reconnects(1, present: false)
        #expect(story.ends() == ["valve's Session is gone"])

        story = Story()
        story.connects(1, cleanStart: false, present: true)
        #expect(story.ends().count == 1)

        story = Story()
        story.connects(1)
        story.saw(.lost, by: 1)
        story.connects(1, cleanStart: true, present: true)
        #expect(story.ends().count == 1)

        // An expiry that may be over.
        for (wait, isTooSoon) in [(5, true), (200, false)] as [(UInt64, Bool)] {
            story = Story()
            story.connects(1, expirySeconds: 100)
            story.saw(.lost, by: 1)
            story.now += wait * 1_000_000
            story.reconnects(1, expirySeconds: 100, present: false)
            #expect(story.ends().isEmpty == !isTooSoon)
        }
    }

    @Test("[MQTT5-3.1.2-4] Clean Start: what the old Session was owed is owed no more, and must not come")
    func cleanStart() {
        for comes in [false, true] {
            var story = Story()
            story.begins()
            story.publishes(1)
            story.accepts(1)
            story.saw(.lost, by: 1)
            story.connects(1, cleanStart: true)
            story.subscribes(1)
            if comes { story.receives(1) }
            #expect(story.ends().isEmpty == !comes)
        }
    }

    @Test("A Session that ends with its connection is owed what came on the connection that lasts")
    func volatileSession() {
        var story = Story()
        story.connects(0)
        story.connects(1, cleanStart: true, expirySeconds: 0)
        story.subscribes(1)
        story.publishes(1)
        story.accepts(1)
        story.saw(.lost, by: 1)
        story.connects(1, cleanStart: true, expirySeconds: 0)
        story.subscribes(1)
        story.publishes(2)
        story.accepts(2)
        #expect(story.ends() == ["valve never got 1#2"])
    }

    @Test("[MQTT5-3.3.1-9] A new subscription brings the retained message, and no older one")
    func retainedMessages() {
        func story(_ bring: [UInt32]) -> [String] {
            var story = Story()
            story.connects(0)
            story.connects(1)
            for i in 1...2 as ClosedRange<UInt32> {
                story.publishes(i, retain: true)
                story.accepts(i)
            }
            story.subscribes(1)
            for number in bring { story.receives(number, retain: true) }
            return story.ends()
        }
        #expect(story([2]) == [])
        #expect(story([]).count == 1)
        #expect(story([1, 2]).count == 1)
        #expect(story([2, 2]).count >= 1)
    }

    @Test("Which message is the retained one is uncertain while another is in flight")
    func retainedInFlight() {
        for brings in [1, 2] as [UInt32] {
            var story = Story()
            story.connects(0)
            story.connects(1)
            story.publishes(1, retain: true)
            story.accepts(1)
            story.publishes(2, retain: true)
            story.subscribes(1)
            story.accepts(2)
            story.receives(brings, retain: true)
            #expect(story.ends() == [])
        }
    }

    @Test(
        "[MQTT5-3.1.2-8] A Will is owed when its connection was cut and another has followed, but for a power cut"
    )
    func wills() {
        for (cutsPower, comes) in [(false, true), (false, false), (true, false), (true, true)] {
            var story = Story()
            story.connects(1)
            story.subscribes(1)
            story.connects(0, will: 50)
            if cutsPower { story.oracle.powerFailed(at: story.now) }
            story.saw(.lost, by: 0)
            story.connects(0, cleanStart: false, present: true, will: 51)
            if comes { story.receives(50, topic: "t/will") }
            #expect(story.ends().isEmpty == (cutsPower || comes))
        }
    }

    @Test("Rule A10: who does not come back after a power cut, for longer than the grace, owes its Will")
    func willsAfterPowerCuts() {
        for (away, runs, isOwed) in [(60, 50, true), (20, 15, false), (60, 10, false)]
            as [(UInt64, UInt64, Bool)]
        {
            for comes in [false, true] {
                var story = Story()
                story.connects(1)
                story.subscribes(1)
                story.connects(0, will: 50)
                story.oracle.powerFailed(at: story.now)
                let back = story.now + away * 1_000_000
                story.oracle.runs(since: back - runs * 1_000_000)
                story.saw(.lost, by: 0)
                story.now = back
                story.connects(0, cleanStart: false, present: true, will: 51)
                if comes { story.receives(50, topic: "t/will") }
                #expect(story.ends().isEmpty == (comes || !isOwed))
            }
        }
    }

    @Test("[MQTT5-3.1.2-10] The Will of who said goodbye, and was heard, must not be published")
    func discardedWills() {
        for isHeard in [false, true] {
            var story = Story()
            story.connects(1)
            story.subscribes(1)
            story.connects(0, will: 50)
            story.saw(.leaving(.normalDisconnection, expirySeconds: nil), by: 0)
            if isHeard { story.oracle.heardOut(0, at: story.now) }
            story.saw(.lost, by: 0)
            story.receives(50, topic: "t/will")
            #expect(story.ends().isEmpty == !isHeard)
        }
        // Heard out on a later connection says nothing of that goodbye.
        var story = Story()
        story.connects(1)
        story.subscribes(1)
        story.connects(0, will: 50)
        story.saw(.leaving(.normalDisconnection, expirySeconds: nil), by: 0)
        story.saw(.lost, by: 0)
        story.saw(.connecting(.init(cleanStart: false, expirySeconds: .max, willDelaySeconds: 0)), by: 0)
        story.saw(.turnedAway(.serverUnavailable), by: 0)
        story.oracle.heardOut(0, at: story.now)
        story.saw(.lost, by: 0)
        story.receives(50, topic: "t/will")
        #expect(story.ends() == [])
    }

    @Test(
        "[MQTT5-4.8.2-5] A group's message reaches one member; at QoS 2 no second; with a member's Session it may go"
    )
    func sharedSubscriptions() {
        func story(_ receivers: [Int], drifterEnds: Bool = false, qos: QoS = .exactlyOnce) -> [String] {
            var story = Story(shared: true)
            story.connects(0)
            for i in 1...2 {
                story.connects(i)
                story.subscribes(i, "$share/g/t/#")
            }
            story.publishes(1, qos)
            story.accepts(1)
            if drifterEnds {
                story.saw(.lost, by: 2)
                story.connects(2, cleanStart: true)
            }
            for i in receivers { story.receives(1, qos, by: i) }
            return story.ends()
        }
        #expect(story([1]) == [])
        #expect(story([2]) == [])
        #expect(story([]).count == 1)
        #expect(story([1, 2]).count == 1)
        #expect(story([1, 2], qos: .atLeastOnce) == [])
        #expect(story([], drifterEnds: true) == [])
        #expect(story([], drifterEnds: true, qos: .atLeastOnce).count == 1)
    }

    @Test("Upwards: what never came is missed, unless the cloud lost or refused it, or it is a dead letter")
    func upwards() {
        func story(_ tell: (inout Story, MessageName) -> Void, deadLetters: [MessageName] = []) -> [String] {
            var story = Story()
            story.connects(0)
            story.publishes(1, .exactlyOnce, topic: "up/a")
            story.accepts(1)
            tell(&story, story.name(1))
            return story.ends(deadLetters: deadLetters)
        }
        func received(_ name: MessageName) -> PeerEvent {
            .received(.init(name: name, topic: Array("up/a".utf8), qos: .exactlyOnce))
        }
        #expect(story { _, _ in }.count == 1)
        #expect(story { $0.saw(received($1), by: 3) } == [])
        #expect(story { $0.saw(.refused($1), by: 3) }.count == 1)
        #expect(story({ $0.saw(.refused($1), by: 3) }, deadLetters: [MessageName(1, 1)]) == [])
        for wasAnswered in [false, true] {
            let found = story {
                $0.saw(received($1), by: 3)
                $0.saw(.wentBack(undone: [.init(name: $1, wasAnswered: wasAnswered)]), by: 3)
            }
            #expect(found.isEmpty == wasAnswered)
        }
        let twice = story {
            $0.saw(received($1), by: 3)
            $0.saw(received($1), by: 3)
        }
        #expect(twice.count == 1)
        let forgotten = story {
            $0.saw(received($1), by: 3)
            $0.saw(.forgot, by: 3)
            $0.saw(received($1), by: 3)
        }
        #expect(forgotten == [])
    }

    @Test("What a policy let go may be missing, as many as it counted")
    func policy() {
        for dropped in 0...2 {
            var story = Story()
            story.begins()
            for i in 1...2 as ClosedRange<UInt32> {
                story.publishes(i)
                story.accepts(i)
            }
            #expect(story.ends(dropped: dropped).isEmpty == (dropped == 2))
        }
    }

    @Test("Of who is rude nothing is believed and nothing is owed")
    func rude() {
        var story = Story(isRude: true)
        story.begins()
        story.publishes(1)
        story.accepts(1)
        #expect(story.ends() == [])
    }

    @Test(
        "P2, P3: around a real core with cut links and restarts it finds nothing to report", arguments: 1...12
    )
    func realCore(seed: UInt64) {
        var bench = PeerBench(
            clients: Self.village(seed), cloud: Self.cloud(seed), seed: seed)
        bench.cutsOneIn = seed % 3 == 0 ? 0 : 60
        for _ in 0..<5 {
            bench.runs(seconds: 6)
            bench.powerFails()
        }
        let isQuiet = bench.settles(withinSeconds: 60)
        let restless = bench.restless
        #expect(isQuiet, "\(restless)")
        let violations = bench.verdict()
        #expect(violations == [])
        let accepted = bench.events.count { if case .accepted = $0.event { true } else { false } }
        #expect(accepted > 200)
    }

    /// One of everything.
    static func village(_ seed: UInt64) -> [ClientPlan] {
        func request(_ filter: String, _ qos: QoS) -> ClientPlan.Subscription {
            .init(.init(filter: PeerBench.filter(filter), maximumQoS: qos))
        }
        var sensor = ClientPlan("sensor", author: 1)
        sensor.publishing = .init(["up/a", "t/b", "t/c"], every: 100_000)
        sensor.publishing?.usesAliases = true
        var old = ClientPlan("old-sensor", author: 2)
        old.version = .v3_1_1
        old.publishing = .init(["up/o", "t/o"], every: 150_000)
        old.staysFor = 3_000_000
        old.cleanStartPercent = 10
        old.will = .init("t/will/old", .exactlyOnce)
        var keeper = ClientPlan("keeper", author: 3)
        keeper.publishing = .init(["t/kept/1", "t/kept/2"], every: 300_000)
        keeper.publishing?.retainedPercent = 70
        keeper.publishing?.clearingPercent = 20
        keeper.will = .init("t/will/keeper", .atLeastOnce)
        keeper.will?.delaySeconds = 2
        keeper.staysFor = 4_000_000
        var valve = ClientPlan("valve", author: 4)
        valve.subscriptions = [request("down/#", .exactlyOnce), request("t/#", .exactlyOnce)]
        valve.receiveMaximum = 5
        valve.staysFor = 5_000_000
        var screen = ClientPlan("screen", author: 5)
        screen.version = .v3_1_1
        screen.expirySeconds = 0
        screen.subscriptions = [request("t/+", .atLeastOnce), request("t/kept/#", .atMostOnce)]
        screen.changesSubscriptionsEvery = 2_000_000
        var watcher = ClientPlan("watcher", author: 6)
        watcher.subscriptions = [
            request("t/b", .exactlyOnce), request("t/kept/+", .atLeastOnce), request("t/#", .atLeastOnce),
        ]
        for i in watcher.subscriptions.indices {
            watcher.subscriptions[i].identifier = UInt32(i + 1)
            watcher.subscriptions[i].request.retainAsPublished = i == 2
        }
        watcher.changesSubscriptionsEvery = 800_000
        watcher.answersWithin = 200_000
        watcher.cleanStartPercent = 20
        watcher.staysFor = 6_000_000
        var members = (0..<3).map { ClientPlan("member-\($0)", author: UInt16(10 + $0)) }
        for i in members.indices {
            members[i].subscriptions = [request("$share/g/t/+", i == 2 ? .atLeastOnce : .exactlyOnce)]
            members[i].staysFor = 3_000_000
        }
        members[1].changesSubscriptionsEvery = 3_000_000
        members[2].expirySeconds = 0
        var rude = ClientPlan("rude", author: 20)
        rude.expirySeconds = 0
        rude.manners = ClientPlan.Rudeness.allCases
        rude.publishing = .init(["t/rude"], every: 500_000)
        rude.staysFor = 2_000_000
        return [sensor, old, keeper, valve, screen, watcher] + members + [rude]
    }

    static func cloud(_ seed: UInt64) -> CloudPlan {
        var cloud = CloudPlan(author: 100)
        cloud.version = seed % 4 == 0 ? .v3_1_1 : .v5_0
        cloud.topics = ["down/x", "down/y"]
        cloud.publishesEvery = 200_000
        cloud.endsConnectionsAfter = 4_000_000
        cloud.forgetsPercent = seed % 2 == 0 ? 30 : 0
        cloud.goesBackPercent = seed % 5 == 0 ? 30 : 0
        cloud.savesEvery = 1_000_000
        cloud.refusesPercent = seed % 3 == 0 ? 5 : 0
        cloud.capsQoSPercent = 20
        cloud.receiveMaximum = 5
        cloud.topicAliasMaximum = 1
        cloud.answersWithin = 20_000
        cloud.acknowledgesQoS2AsQoS1 = seed % 8 == 0
        return cloud
    }
}

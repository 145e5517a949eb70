import GatewayCore
import Journal
import MQTT
import Uplink

// What goes wrong by itself, when its time comes.
extension World {
    // MARK: Faults

    func plan(_ kind: FaultKind) {
        guard let mean = kind.meanInterval, var dice = faultDice[kind] else { return }
        var wait = mean / 10 + UInt64(dice.below(Int(mean * 9 / 5)))
        if kind == .powerCut, dice.below(3) == 0 { wait /= 20 }
        faultDice[kind] = dice
        events.add(.fault(kind), at: now + wait)
    }

    func strike(_ kind: FaultKind) {
        guard !isSettling, var dice = faultDice[kind] else { return }
        plan(kind)
        faultDice[kind]?.stir()
        switch kind {
        case .powerCut: return losePower(.powerCut)
        case .kill: kill()
        case .stop: tell { $0.stop() }
        case .linkCut, .halfOpen, .blackHole: strikeLink(kind, &dice)
        case .storm:
            for link in openLinks {
                cut(link, gatewayLearnsAfter: 0, peerLearnsAfter: UInt64(dice.below(10_000)))
            }
        case .outage:
            cloudAwayUntil = now + UInt64(dice.below(30_000_000))
            for link in openLinks where links[link].connection == nil {
                cut(
                    link, gatewayLearnsAfter: UInt64(dice.below(3_000_000)),
                    peerLearnsAfter: UInt64(dice.below(3_000_000)))
            }
        case .stall:
            let lasts = dice.below(8_000_000)
            diskIdleAt = max(diskIdleAt, now) + UInt64(lasts)
            // Whatever did not wait for the disk is found out when it never gets to it.
            if scenario.has(.powerCut), dice.coin() {
                events.add(.fails(life: life), at: now + UInt64(dice.below(lasts + 1)))
            }
        case .diskError:
            let errors = [
                DiskFault.noSpace, DiskFault.broken, DiskFault.broken, DiskFault.readOnly,
                DiskFault.noDescriptor,
            ]
            let step = dice.coin() ? nil : DiskFault.Step.allCases[dice.below(DiskFault.Step.allCases.count)]
            disk.fault = DiskFault(
                after: dice.below(12), errorNumber: errors[dice.below(errors.count)], step: step,
                times: 1 + dice.below(4))
            // A card that is being reset gives nothing for a while, and what it would give is not lost.
            if step == .read {
                disk.fault?.times = .max
                disk.fault?.endsAt = now + UInt64(dice.below(50_000_000))
            }
        case .wrongClock:
            // For less than it takes to be believed.
            clocks.setWrongly(
                by: [-86_400_000, 3_600_000, 315_360_000_000][dice.below(3)],
                until: now + UInt64(dice.below(50_000_000)))
        case .suspend:
            asleepUntil = now + UInt64(dice.below(40_000_000))
            cast.runs(since: asleepUntil)
        case .stepCut, .recoveryCut, .fullDisk, .rot, .neighbour, .noClock: return
        }
        statistics.faults[kind, default: 0] += 1
        trace.say("fault: \(kind.rawValue)", at: now)
    }

    func strikeLink(_ kind: FaultKind, _ dice: inout Dice) {
        let open = openLinks.filter { links[$0].isOpenAtPeer && links[$0].isOpenAtGateway }
        guard !open.isEmpty else { return }
        let link = open[dice.below(open.count)]
        let long = UInt64(dice.below(40_000_000))
        let soon = UInt64(dice.below(50_000))
        switch kind {
        case .halfOpen:
            let isGatewayLate = dice.below(4) > 0
            cut(
                link, gatewayLearnsAfter: isGatewayLate ? long : soon,
                peerLearnsAfter: isGatewayLate ? soon : long)
        case .blackHole:
            let until = now + UInt64(dice.below(15_000_000))
            if dice.coin() { links[link].toGateway.notBefore = max(links[link].toGateway.notBefore, until) }
            if dice.coin() { links[link].toPeer.notBefore = max(links[link].toPeer.notBefore, until) }
        default: cut(link, gatewayLearnsAfter: soon, peerLearnsAfter: UInt64(dice.below(50_000)))
        }
    }
}

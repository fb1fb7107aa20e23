#!/usr/bin/env perl
# Runs the steps of a plan, each once those it needs have worked: scheduler.pl PLAN
#
# A line of the plan is NAME: NEEDED NAMES | COMMAND. Started by meso-offer --exec: lines come on standard input, calls go to
# standard output. Ends with 0 once all steps have worked, with 1 once nothing runs and nothing more can.
use strict;
use warnings;
use JSON::PP;
use List::Util qw(all min);
$| = 1;

my ($cpus, $mem) = (0.2, 32);
my (%step, @order, %asked, $calls);
open my $plan, '<', $ARGV[0] or die "$ARGV[0]: $!\n";
while (<$plan>) {
    next if /^\s*(#|$)/;
    my ($name, $needs, $command) = /^([\w-]+):([^|]*)\|(.*)/ or die "$ARGV[0], line $.: NAME: NEEDED NAMES | COMMAND\n";
    $step{$name} = { needs => [split ' ', $needs], command => $command, state => 'waiting' };
    push @order, $name;
}
for my $name (@order) {
    $step{$_} or die "$name needs $_, which is no step\n" for @{ $step{$name}{needs} };
}

sub in_state { my $state = shift; grep { $step{$_}{state} eq $state } @order }
sub ready { grep { all { $step{$_}{state} eq 'worked' } @{ $step{$_}{needs} } } in_state('waiting') }
sub call { print encode_json({@_}), "\n"; return ++$calls }

sub offer {
    my $offer = shift;
    my @take = in_state('failed') ? () : ready();
    my $room = min int($offer->{cpus} / $cpus), int($offer->{mem} / $mem);
    splice @take, $room if @take > $room;
    if (!@take) {
        call(meso => 'decline/1', offers => [$offer->{id}]);
        call(meso => 'suppress/1');
        return;
    }
    my @tasks = map { { name => $_, cmd => $step{$_}{command}, cpus => $cpus, mem => $mem } } @take;
    $step{$_}{state} = 'running' for @take;
    $asked{ call(meso => 'accept/1', offers => [$offer->{id}], ops => [{ launch => \@tasks }]) } = \@take;
}

sub wait_again {
    $step{$_}{state} = 'waiting' for @_;
    call(meso => 'revive/1');
}

while (<STDIN>) {
    my $line = decode_json($_);
    if ($line->{meso} eq 'offer/1') {
        offer($line);
    } elsif ($line->{meso} eq 'result/1') {
        my $take = delete $asked{ $line->{line} };
        wait_again(@$take) if $take && !$line->{ok};
    } elsif ($line->{meso} eq 'update/1' && $line->{final} && $step{ $line->{name} }{state} eq 'running') {
        my ($name, $state) = @$line{qw(name state)};
        if ($state eq 'dropped' || $state eq 'gone') {
            wait_again($name);
        } else {
            $step{$name}{state} = $state eq 'finished' ? 'worked' : 'failed';
            print STDERR "$name $step{$name}{state} on $line->{host}\n";
            call(meso => 'revive/1') if ready();
        }
    }
    last if !in_state('running') && (in_state('failed') || !ready());
}
exit(in_state('worked') == @order ? 0 : 1);
